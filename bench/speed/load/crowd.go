package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// crowd tells the proxy's memory with many connections that idle (each has had an answer), and
// then with as many slow streams: rss_before_mib, rss_idle_mib, rss_slow_mib.
func crowd(t task) result {
	told, trouble := result{}, &faults{}
	tree := family(t.watched.pid)
	told["rss_before_mib"] = residentMiB(tree)

	idle := connect(t.target, t.conns, trouble)
	time.Sleep(500 * time.Millisecond)
	told["rss_idle_mib"] = residentMiB(tree)
	told["idle"] = len(idle)
	for _, c := range idle {
		c.close()
	}
	time.Sleep(300 * time.Millisecond)

	const step = 2 * time.Millisecond
	request := t.target.request(ask{stream: true, tokens: 60, rate: 1})
	until := time.Now().Add(step*time.Duration(t.conns) + t.span)
	meter := t.watched.start()
	var all sync.WaitGroup
	var live atomic.Int64
	for index := 0; index < t.conns; index++ {
		all.Add(1)
		go func() {
			defer all.Done()
			c, err := dial(t.target.addr)
			if err != nil {
				trouble.note(err)
				return
			}
			defer c.close()
			var seen stream
			err = seen.read(c, request, 60, until)
			if seen.tokens > 0 {
				live.Add(1)
			} else {
				trouble.note(err)
			}
		}()
		time.Sleep(step)
	}
	time.Sleep(time.Until(until.Add(-300 * time.Millisecond)))
	meter.stop(told)
	told["rss_slow_mib"] = told["rss_mib"]
	all.Wait()
	told["slow"] = live.Load()
	told.tellFaults(trouble)
	return told
}
