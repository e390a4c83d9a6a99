package main

import (
	"sync"
	"time"
)

const patience = 15 * time.Second // for one answer that is not a stream

// connect opens connections, each of which has had one good answer: the proxy's own connections
// are open as well then. One that a proxy closes behind an answer is opened again.
func connect(t target, count int, trouble *faults) []*client {
	clients := make([]*client, 0, count)
	warm := t.request(ask{tokens: 1})
	for len(clients) < count {
		c, err := dial(t.addr)
		if err != nil {
			trouble.note(err)
			return clients
		}
		trouble.note(c.good(c.ask(warm, time.Now().Add(patience), nil)))
		if !c.keep {
			c.close()
			if c, err = dial(t.addr); err != nil {
				trouble.note(err)
				return clients
			}
		}
		clients = append(clients, c)
	}
	return clients
}

// closedLoop has every connection ask for whole answers, one after the other.
func closedLoop(t task) result {
	told, trouble := result{}, &faults{}
	clients := connect(t.target, t.conns, trouble)
	request := t.target.request(ask{tokens: 57})
	spans := make([][]time.Duration, len(clients))
	var all sync.WaitGroup
	meter := t.watched.start()
	end := time.Now().Add(t.span)
	for index, c := range clients {
		all.Add(1)
		go func(index int, c *client) {
			defer all.Done()
			spans[index] = askUntil(end, c, t.target.addr, request, trouble)
		}(index, c)
	}
	all.Wait()
	meter.stop(told)
	var done []time.Duration
	for _, some := range spans {
		done = append(done, some...)
	}
	count := float64(len(done))
	told["requests"] = count
	told["per_s"] = count / told["seconds"].(float64)
	told.share("cpu_us_each", count, 1e6)
	told.tell("latency", done)
	told.tellFaults(trouble)
	return told
}

func askUntil(end time.Time, c *client, addr string, request []byte, trouble *faults) (spans []time.Duration) {
	for {
		began := time.Now()
		if began.After(end) {
			c.close()
			return spans
		}
		err := c.good(c.ask(request, began.Add(patience), nil))
		trouble.note(err)
		if err == nil {
			spans = append(spans, time.Since(began))
		}
		if !c.keep || err != nil {
			c.close()
			if c, err = dial(addr); err != nil {
				trouble.note(err)
				return spans
			}
		}
	}
}
