package main

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// entry is what became of a call that was given an id. Times are Unix nanoseconds, 0: not yet.
type entry struct {
	Begun int64 `json:"begun_ns"` // the whole request was here
	Left  int64 `json:"left_ns"`  // the connection was seen closed before the answer was whole
	Ended int64 `json:"ended_ns"` // the answer was whole
}

// journal keeps the calls that were given an id, and the streams that run.
//
//	GET /?prefix=a   the calls whose id starts with a
//	POST /hush       cuts all streams: for a proxy that goes on although its client has left
type journal struct {
	mutex   sync.Mutex
	entries map[string]*entry
	streams map[net.Conn]bool
}

func newJournal() *journal {
	return &journal{entries: map[string]*entry{}, streams: map[net.Conn]bool{}}
}

func (j *journal) streaming(conn net.Conn) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.streams[conn] = true
}

func (j *journal) streamed(conn net.Conn) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	delete(j.streams, conn)
}

func (j *journal) hush() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	for conn := range j.streams {
		conn.Close()
	}
}

func (j *journal) begun(id string) {
	j.change(id, func(e *entry) { e.Begun = time.Now().UnixNano() })
}

func (j *journal) over(id string, whole bool) {
	now := time.Now().UnixNano()
	j.change(id, func(e *entry) {
		if whole {
			e.Ended = now
		} else {
			e.Left = now
		}
	})
}

func (j *journal) change(id string, apply func(*entry)) {
	if id == "" {
		return
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if j.entries[id] == nil {
		j.entries[id] = &entry{}
	}
	apply(j.entries[id])
}

func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/hush" {
		j.hush()
		return
	}
	prefix := r.URL.Query().Get("prefix")
	found := map[string]entry{}
	j.mutex.Lock()
	for id, e := range j.entries {
		if strings.HasPrefix(id, prefix) {
			found[id] = *e
		}
	}
	j.mutex.Unlock()
	json.NewEncoder(w).Encode(found)
}
