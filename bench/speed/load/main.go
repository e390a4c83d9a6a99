// The load generator: one kind of load against one proxy, told as one line of JSON.
//
//	load closed  -addr 127.0.0.1:80 -conns 32 -seconds 3
//	load open    -addr 127.0.0.1:80 -direct 127.0.0.1:81 -rate 50 -seconds 4
//	load streams -addr 127.0.0.1:80 -conns 64 -tokens 200 -rate 50 -seconds 8
//	load aborts  -addr 127.0.0.1:80 -control 127.0.0.1:82 -conns 12
//	load crowd   -addr 127.0.0.1:80 -conns 500 -seconds 3
//	load rest    -seconds 2
//
// With -pid it tells what that process and its children spent meanwhile, see usage.go.
// Times are nanoseconds inside and microseconds in what is told.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// task is what the flags say.
type task struct {
	target  target
	direct  target
	conns   int
	tokens  int
	rate    float64
	span    time.Duration
	watched watched
}

// result is what is told; every mode adds its own.
type result map[string]any

var modes = map[string]func(task) result{
	"closed":  closedLoop,
	"open":    openLoop,
	"streams": streams,
	"aborts":  aborts,
	"crowd":   crowd,
	"rest":    rest,
}

func main() {
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: load closed|open|streams|aborts|crowd|rest [flags]")
		os.Exit(2)
	}
	told := modes[os.Args[1]](parse(os.Args[2:]))
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(words []string) task {
	var t task
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&t.target.addr, "addr", "", "the proxy")
	flags.StringVar(&t.target.route, "route", "/api/chat", "the route called; /v1/... gets OpenAI's body")
	flags.StringVar(&t.target.model, "model", "llama3.2", "the model named in the body")
	flags.StringVar(&t.direct.addr, "direct", "", "the upstream itself (open)")
	flags.StringVar(&t.watched.control, "control", "", "the mock's journal")
	flags.IntVar(&t.conns, "conns", 1, "connections")
	flags.IntVar(&t.tokens, "tokens", 200, "tokens of a stream")
	flags.Float64Var(&t.rate, "rate", 0, "tokens a second of a stream, 0: unpaced; calls a second (open)")
	seconds := flags.Float64("seconds", 3, "how long; streams: when to give up")
	flags.IntVar(&t.watched.pid, "pid", 0, "the proxy's process")
	flags.IntVar(&t.watched.mock, "mock-pid", 0, "the mock's process")
	flags.StringVar(&t.watched.cores, "cores", "", "cores on which other processes are noise, as 0,1")
	_ = flags.Parse(words)
	t.direct.route, t.direct.model = "/api/chat", "llama3.2"
	t.span = time.Duration(*seconds * float64(time.Second))
	return t
}

// rest tells what the proxy costs when nobody calls it.
func rest(t task) result {
	tree := family(t.watched.pid)
	before := spent(tree)
	time.Sleep(t.span)
	return result{
		"rss_mib":      residentMiB(tree),
		"cpu_ms_per_s": (spent(tree) - before).Seconds() * 1000 / t.span.Seconds(),
	}
}
