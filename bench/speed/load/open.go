package main

import (
	"sync"
	"time"
)

// openLoop asks at a fixed rate, whatever the answers take, the proxy and, half a period later,
// the upstream itself: what the proxy adds is the difference of the two in the same seconds.
func openLoop(t task) result {
	told, trouble := result{}, &faults{}
	period := time.Duration(float64(time.Second) / t.rate)
	count := int(t.span / period)
	var through, direct []time.Duration
	var both sync.WaitGroup
	both.Add(2)
	meter := t.watched.start()
	begin := time.Now().Add(100 * time.Millisecond)
	go func() {
		defer both.Done()
		through = askEvery(t.target, period, count, begin, trouble)
	}()
	go func() {
		defer both.Done()
		direct = askEvery(t.direct, period, count, begin.Add(period/2), trouble)
	}()
	both.Wait()
	meter.stop(told)
	told.tell("latency", through)
	told.tell("direct", direct)
	told.tellFaults(trouble)
	return told
}

// askEvery sends a request each period, on a connection that is free at that moment.
func askEvery(t target, period time.Duration, count int, begin time.Time, trouble *faults) []time.Duration {
	free := make(chan *client, count+1)
	for _, c := range connect(t, 1, trouble) {
		free <- c
	}
	request := t.request(ask{tokens: 57})
	spans := make(chan time.Duration, count)
	var all sync.WaitGroup
	for index := 0; index < count; index++ {
		time.Sleep(time.Until(begin.Add(period * time.Duration(index))))
		all.Add(1)
		go func() {
			defer all.Done()
			began := time.Now()
			c, err := take(free, t.addr)
			if err != nil {
				trouble.note(err)
				return
			}
			if err = c.good(c.ask(request, began.Add(patience), nil)); err != nil {
				trouble.note(err)
				c.close()
				return
			}
			spans <- time.Since(began)
			if c.keep {
				free <- c
			} else {
				c.close()
			}
		}()
	}
	all.Wait()
	close(spans)
	close(free)
	for c := range free {
		c.close()
	}
	var done []time.Duration
	for span := range spans {
		done = append(done, span)
	}
	return done
}

func take(free chan *client, addr string) (*client, error) {
	select {
	case c := <-free:
		return c, nil
	default:
		return dial(addr)
	}
}
