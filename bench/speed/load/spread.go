package main

import (
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// tell writes quantiles of durations in microseconds: name_p50_us, name_p99_us, name_max_us.
func (r result) tell(name string, values []time.Duration) {
	if len(values) == 0 {
		return
	}
	slices.Sort(values)
	at := func(share float64) float64 {
		rank := int(math.Ceil(share*float64(len(values)))) - 1
		return float64(values[max(rank, 0)]) / float64(time.Microsecond)
	}
	r[name+"_p50_us"], r[name+"_p99_us"], r[name+"_max_us"] = at(.5), at(.99), at(1)
}

// faults counts what went wrong, by what was said.
type faults struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (f *faults) note(err error) {
	if err == nil {
		return
	}
	words := err.Error()
	if at := strings.LastIndex(words, ": "); at >= 0 { // without the ports, which are all different
		words = words[at+2:]
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	f.counts[words]++
}

func (r result) tellFaults(f *faults) {
	r["faults"] = f.counts
}
