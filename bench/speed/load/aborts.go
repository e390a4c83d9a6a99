package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// phases are the moments at which a client leaves, by what it had asked for.
var phases = map[string]ask{
	"stream":  {stream: true, tokens: 100, rate: 20},             // two tokens have come
	"prefill": {stream: true, tokens: 1, rate: 1, waitMs: 5000},  // nothing has come
	"whole":   {stream: false, tokens: 1, rate: 1, waitMs: 5000}, // nothing has come, no stream
}

const (
	leaveAfter = 400 * time.Millisecond // where nothing comes to wait for
	staysFor   = 6 * time.Second        // an answer nobody cut is over by then
)

// aborts has clients leave in every phase and asks the mock when it saw that: gone_PHASE_p50_us,
// and of how many it never did, never_PHASE.
func aborts(t task) result {
	told, trouble := result{}, &faults{}
	run := fmt.Sprint(time.Now().UnixNano(), "-")
	var all sync.WaitGroup
	var mutex sync.Mutex
	left := map[string]time.Time{}
	meter := t.watched.start()
	for index := 0; index < t.conns; index++ {
		for phase, wanted := range phases {
			wanted.id = fmt.Sprint(run, phase, "-", index)
			all.Add(1)
			go func() {
				defer all.Done()
				at, err := leave(t.target, wanted)
				trouble.note(err)
				mutex.Lock()
				left[wanted.id] = at
				mutex.Unlock()
			}()
			time.Sleep(7 * time.Millisecond)
		}
	}
	all.Wait()
	seen, err := awaitGone(t.watched.control, run, len(left))
	trouble.note(err)
	meter.stop(told)
	for phase := range phases {
		var spans []time.Duration
		never := 0
		for index := 0; index < t.conns; index++ {
			id := fmt.Sprint(run, phase, "-", index)
			if gone := seen[id].Left; gone > 0 {
				spans = append(spans, time.Duration(gone-left[id].UnixNano()))
			} else {
				never++
			}
		}
		told.tell("gone_"+phase, spans)
		told["never_"+phase] = never
	}
	told.tellFaults(trouble)
	return told
}

// leave asks, waits for the moment, and closes the connection.
func leave(t target, wanted ask) (time.Time, error) {
	c, err := dial(t.addr)
	if err != nil {
		return time.Time{}, err
	}
	defer c.close()
	if wanted.waitMs > 0 {
		if _, err = c.conn.Write(t.request(wanted)); err == nil {
			time.Sleep(leaveAfter)
		}
		return time.Now(), err
	}
	var found marks
	got := 0
	err = c.ask(t.request(wanted), time.Now().Add(staysFor), func(data []byte, _ time.Time) bool {
		found.feed(data, func(int64) { got++ })
		return got < 2
	})
	time.Sleep(10 * time.Millisecond)
	return time.Now(), c.good(err)
}

// gone is what the mock's journal says of a call, in Unix nanoseconds, 0: not yet.
type gone struct {
	Begun int64 `json:"begun_ns"`
	Left  int64 `json:"left_ns"`
	Ended int64 `json:"ended_ns"`
}

// awaitGone reads the journal until all calls are over, or those would be that nobody cut.
func awaitGone(control, run string, count int) (map[string]gone, error) {
	until := time.Now().Add(staysFor)
	for {
		seen := map[string]gone{}
		answer, err := http.Get("http://" + control + "/?prefix=" + run)
		if err != nil {
			return seen, err
		}
		err = json.NewDecoder(answer.Body).Decode(&seen)
		answer.Body.Close()
		over := 0
		for _, call := range seen {
			if call.Left > 0 || call.Ended > 0 {
				over++
			}
		}
		if err != nil || over == count || time.Now().After(until) {
			return seen, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
