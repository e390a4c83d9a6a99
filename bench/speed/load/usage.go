package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// watched is who is metered: the proxy with its children, and the mock, whose CPU time together
// with our own is what the chosen cores should have spent. The rest is other people's: noise.
type watched struct {
	pid, mock int
	cores     string
	control   string // the mock's
}

const tick = 10 * time.Millisecond // of /proc's CPU times

type meter struct {
	watched watched
	tree    []int
	began   time.Time
	proxy   time.Duration
	waited  time.Duration
	ours    time.Duration
	busy    time.Duration
}

func (w watched) start() meter {
	tree := family(w.pid)
	return meter{w, tree, time.Now(), spent(tree), waited(tree), spent([]int{w.mock, os.Getpid()}), busy(w.cores)}
}

// stop tells: seconds, load_cpu_s of mock and load generator, foreign_cores (how many cores others
// kept busy), rss_mib, waited_s (the proxy was ready to run and had no core), and cpu_s of the
// proxy with what it put off and did after the last answer: lines still to be written are part of
// a call's price.
func (m meter) stop(told result) {
	span := time.Since(m.began).Seconds()
	proxy := (spent(m.tree) - m.proxy).Seconds()
	ours := (spent([]int{m.watched.mock, os.Getpid()}) - m.ours).Seconds()
	told["seconds"] = span
	told["load_cpu_s"] = ours
	if m.watched.cores != "" {
		told["foreign_cores"] = max(0, ((busy(m.watched.cores)-m.busy).Seconds()-proxy-ours)/span)
	}
	if m.watched.pid > 0 {
		told["rss_mib"] = residentMiB(m.tree)
		told["waited_s"] = (waited(m.tree) - m.waited).Seconds()
		m.watched.hush()
		told["cpu_s"] = (settled(m.tree) - m.proxy).Seconds()
	}
}

// hush has the mock cut streams whose clients have left: not every proxy sees to that, and what
// it still does for them is no part of the next measurement.
func (w watched) hush() {
	if answer, err := http.Post("http://"+w.control+"/hush", "", nil); err == nil {
		answer.Body.Close()
	}
}

// share tells the proxy's CPU time per thing done, in units of which there are scale in a second.
func (r result) share(name string, count, scale float64) {
	if cpu, known := r["cpu_s"].(float64); known && count > 0 {
		r[name] = cpu / count * scale
	}
}

// settled is the CPU time spent once the processes have nothing more to do, or after a while.
func settled(tree []int) time.Duration {
	const step, most = 100 * time.Millisecond, 50
	last := spent(tree)
	for turn := 0; turn < most; turn++ {
		time.Sleep(step)
		now := spent(tree)
		if now-last < step/20 {
			return now
		}
		last = now
	}
	return last
}

// family is a process and all that descends from it.
func family(pid int) []int {
	if pid <= 0 {
		return nil
	}
	children := map[int][]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		child, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if fields := statFields(child); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], child)
		}
	}
	found := []int{pid}
	for at := 0; at < len(found); at++ {
		found = append(found, children[found[at]]...)
	}
	return found
}

// statFields are those of /proc/PID/stat from the third (the state) on.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// spent is the CPU time of processes: of their living threads to the nanosecond, or by the tick,
// with threads that have ended, where that is more.
func spent(pids []int) (total time.Duration) {
	for _, pid := range pids {
		threads := schedstat(pid, 0)
		var ticks time.Duration
		if fields := statFields(pid); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			ticks = time.Duration(user+system) * tick
		}
		if ticks > threads+2*tick {
			threads = ticks
		}
		total += threads
	}
	return total
}

// waited is how long threads were ready to run while something else had their core.
func waited(pids []int) (total time.Duration) {
	for _, pid := range pids {
		total += schedstat(pid, 1)
	}
	return total
}

// schedstat adds up a column over the threads of a process: 0 running, 1 waiting for a core.
func schedstat(pid, column int) (total time.Duration) {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if fields := strings.Fields(string(text)); len(fields) > column {
			value, _ := strconv.ParseInt(fields[column], 10, 64)
			total += time.Duration(value)
		}
	}
	return total
}

func residentMiB(pids []int) float64 {
	pages := 0
	for _, pid := range pids {
		if fields := statFields(pid); len(fields) > 21 {
			count, _ := strconv.Atoi(fields[21])
			pages += count
		}
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
}

// busy is how long the cores have been neither idle nor waiting for a disk.
func busy(cores string) (total time.Duration) {
	text, _ := os.ReadFile("/proc/stat")
	chosen := strings.Split(cores, ",")
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 9 || !slices.Contains(chosen, strings.TrimPrefix(fields[0], "cpu")) {
			continue
		}
		for _, column := range []int{1, 2, 3, 6, 7, 8} { // user nice system irq softirq steal
			value, _ := strconv.ParseInt(fields[column], 10, 64)
			total += time.Duration(value) * tick
		}
	}
	return total
}
