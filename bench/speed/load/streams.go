package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// stream is what one stream's reader saw.
type stream struct {
	delays []time.Duration // of each token, from the mock's write to our read
	first  time.Duration   // from the request to the first token
	tokens int
	size   int64
	end    time.Time
}

// mostDelays bounds what is remembered of an unpaced stream.
const mostDelays = 20_000

// streams runs one stream on every connection. Paced ones begin spread over a second, so that
// their tokens are; unpaced ones are cut when the time is over.
func streams(t task) result {
	told, trouble := result{}, &faults{}
	clients := make([]*client, 0, t.conns)
	clients = append(clients, connect(t.target, min(t.conns, 8), trouble)...)
	for len(clients) < t.conns {
		c, err := dial(t.target.addr)
		if err != nil {
			trouble.note(err)
			break
		}
		clients = append(clients, c)
	}
	request := t.target.request(ask{stream: true, tokens: t.tokens, rate: t.rate})
	seen := make([]stream, len(clients))
	var step time.Duration
	if t.rate > 0 {
		step = time.Second / time.Duration(t.conns)
	}
	var all sync.WaitGroup
	var whole atomic.Int64
	runtime.GC()
	meter := t.watched.start()
	began := time.Now()
	for index, c := range clients {
		all.Add(1)
		go func(index int, c *client) {
			defer all.Done()
			defer c.close()
			time.Sleep(time.Until(began.Add(step * time.Duration(index))))
			err := seen[index].read(c, request, t.tokens, began.Add(t.span))
			if seen[index].tokens == t.tokens {
				whole.Add(1)
			}
			if t.rate > 0 || c.status != 200 {
				trouble.note(err)
			}
		}(index, c)
	}
	all.Wait()
	meter.stop(told)
	tellStreams(told, seen, began)
	told["streams"], told["whole"] = len(clients), whole.Load()
	told.tellFaults(trouble)
	return told
}

func (s *stream) read(c *client, request []byte, tokens int, until time.Time) error {
	s.delays = make([]time.Duration, 0, min(tokens, mostDelays))
	var found marks
	began := time.Now()
	err := c.ask(request, until, func(data []byte, now time.Time) bool {
		found.feed(data, func(sent int64) {
			if s.tokens == 0 {
				s.first = now.Sub(began)
			}
			s.tokens++
			if len(s.delays) < cap(s.delays) {
				s.delays = append(s.delays, time.Duration(now.UnixNano()-sent))
			}
		})
		return true
	})
	s.end = time.Now()
	s.size = c.size
	return c.good(err)
}

func tellStreams(told result, seen []stream, began time.Time) {
	var delays, firsts []time.Duration
	var tokens, size float64
	last := began
	for _, s := range seen {
		delays = append(delays, s.delays...)
		if s.tokens > 0 {
			firsts = append(firsts, s.first)
		}
		tokens += float64(s.tokens)
		size += float64(s.size)
		if s.end.After(last) {
			last = s.end
		}
	}
	span := last.Sub(began).Seconds()
	told["tokens"] = tokens
	told["tokens_per_s"] = tokens / span
	told["mb_per_s"] = size / span / 1e6
	told.share("cpu_s_per_1m", tokens, 1e6)
	told.tell("delay", delays)
	told.tell("first", firsts)
}
