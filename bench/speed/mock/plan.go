package main

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// plan says how one call is answered. It is written into the prompt, between double brackets:
//
//	[[tokens=200 rate=50 wait=500 id=a1]]
//
// tokens: how many; rate: tokens a second, 0 for as fast as they are read; wait: milliseconds
// before the head; id: names the call in the journal.
type plan struct {
	stream bool
	tokens int
	rate   float64
	wait   time.Duration
	id     string
}

// planOf looks for the few things it needs instead of decoding the body. A call streams unless
// its body says otherwise.
func planOf(body []byte) plan {
	p := plan{stream: true, tokens: 32}
	if at := bytes.Index(body, []byte(`"stream"`)); at >= 0 {
		value := bytes.TrimLeft(body[at+len(`"stream"`):], " :")
		p.stream = !bytes.HasPrefix(value, []byte("false"))
	}
	_, after, found := bytes.Cut(body, []byte("[["))
	text, _, closed := bytes.Cut(after, []byte("]]"))
	if !found || !closed {
		return p
	}
	for _, pair := range strings.Fields(string(text)) {
		name, value, _ := strings.Cut(pair, "=")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "tokens":
			p.tokens = int(number)
		case "rate":
			p.rate = number
		case "wait":
			p.wait = time.Duration(number * float64(time.Millisecond))
		case "id":
			p.id = value
		}
	}
	return p
}

// due is when token number index is sent, after the first.
func (p plan) due(index int) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	return time.Duration(float64(index) / p.rate * float64(time.Second))
}
