package main

import (
	"bytes"
	"fmt"
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
}

const tick = 10 * time.Millisecond // of /proc's CPU times

type meter struct {
	watched watched
	tree    []int
	began   time.Time
	proxy   time.Duration
	ours    time.Duration
	busy    time.Duration
}

func (w watched) start() meter {
	tree := family(w.pid)
	return meter{w, tree, time.Now(), spent(tree), spent([]int{w.mock, os.Getpid()}), busy(w.cores)}
}

// stop tells: seconds, cpu_s of the proxy, load_cpu_s of mock and load generator, foreign_cores:
// how many cores others kept busy, rss_mib. It returns the proxy's CPU time in seconds.
func (m meter) stop(told result) float64 {
	span := time.Since(m.began).Seconds()
	proxy := (spent(m.tree) - m.proxy).Seconds()
	ours := (spent([]int{m.watched.mock, os.Getpid()}) - m.ours).Seconds()
	told["seconds"] = span
	told["load_cpu_s"] = ours
	if m.watched.pid > 0 {
		told["cpu_s"] = proxy
		told["rss_mib"] = residentMiB(m.tree)
	}
	if m.watched.cores != "" {
		told["foreign_cores"] = max(0, ((busy(m.watched.cores)-m.busy).Seconds()-proxy-ours)/span)
	}
	return proxy
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
		var threads time.Duration
		paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range paths {
			text, _ := os.ReadFile(path)
			if fields := strings.Fields(string(text)); len(fields) > 0 {
				value, _ := strconv.ParseInt(fields[0], 10, 64)
				threads += time.Duration(value)
			}
		}
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
