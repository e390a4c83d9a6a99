package main

import (
	"bytes"
	"testing"
)

// An answer comes in whatever pieces the network makes of it; what is read must not depend on them.
func TestChunkedBodiesInAnyPieces(t *testing.T) {
	const wire = "5\r\nab~12\r\n13;x=1\r\n34567890123456789~c\r\n0\r\nX-Sum: 1\r\n\r\n"
	const text = "ab~1234567890123456789~c"
	for size := 1; size <= len(wire); size++ {
		b := &body{chunked: true, length: -1}
		var got bytes.Buffer
		var found []int64
		var m marks
		ended := false
		for at := 0; at < len(wire) && !ended; at += size {
			var err error
			ended, err = b.feed([]byte(wire[at:min(at+size, len(wire))]), func(p []byte) bool {
				got.Write(p)
				m.feed(p, func(sent int64) { found = append(found, sent) })
				return true
			})
			if err != nil {
				t.Fatalf("pieces of %d: %v", size, err)
			}
		}
		if !ended || got.String() != text {
			t.Errorf("pieces of %d: ended %v with %q", size, ended, got.String())
		}
		if len(found) != 1 || found[0] != 1234567890123456789 {
			t.Errorf("pieces of %d: marks %v", size, found)
		}
	}
}

func TestBodiesWithALengthEndWithTheirLastByte(t *testing.T) {
	b := &body{length: 3}
	keep := func([]byte) bool { return true }
	if ended, _ := b.feed([]byte("ab"), keep); ended {
		t.Error("ended a byte early")
	}
	if ended, _ := b.feed([]byte("c"), keep); !ended {
		t.Error("did not end")
	}
}

func TestMarksAreNineteenDigits(t *testing.T) {
	var m marks
	m.feed([]byte("~~ 5 ~12~ ~1234567890123456789~~9999999999999999999x~"), func(sent int64) {
		if sent != 1234567890123456789 {
			t.Errorf("found %d", sent)
		}
	})
}
