package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

var errCut = errors.New("connection closed by the server")

// client is one connection that asks one thing after the other.
type client struct {
	conn   net.Conn
	room   []byte
	head   []byte
	status int
	keep   bool  // the connection may be used again
	size   int64 // bytes of the last body
}

func dial(addr string) (*client, error) {
	conn, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, room: make([]byte, 64<<10)}, nil
}

func (c *client) close() { c.conn.Close() }

// ask sends a request and reads the answer to its end. Each piece of the body is handed to piece
// (may be nil) with the time at which it was read; if that says false, ask returns at once.
func (c *client) ask(request []byte, until time.Time, piece func([]byte, time.Time) bool) error {
	c.status, c.keep, c.size = 0, false, 0
	c.conn.SetDeadline(until)
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	rest, body, err := c.readHead()
	if err != nil {
		return err
	}
	now := time.Now()
	for {
		ended, err := body.feed(rest, func(data []byte) bool {
			c.size += int64(len(data))
			return piece == nil || piece(data, now)
		})
		if ended || err != nil {
			return err
		}
		count, err := c.conn.Read(c.room)
		now = time.Now()
		if count == 0 && err != nil {
			if errors.Is(err, io.EOF) && body.untilClose() {
				return nil
			}
			return cut(err)
		}
		rest = c.room[:count]
	}
}

// good says whether a request, as told by ask, went well.
func (c *client) good(err error) error {
	if err == nil && c.status != 200 {
		return fmt.Errorf("status %d", c.status)
	}
	return err
}

// readHead reads the answer's head; rest is what came with it of the body.
func (c *client) readHead() (rest []byte, b *body, err error) {
	c.head = c.head[:0]
	for len(c.head) < 64<<10 {
		count, err := c.conn.Read(c.room)
		c.head = append(c.head, c.room[:count]...)
		if at := bytes.Index(c.head, []byte("\r\n\r\n")); at >= 0 {
			b, err := c.parse(string(c.head[:at]))
			return c.head[at+4:], b, err
		}
		if err != nil {
			return nil, nil, cut(err)
		}
	}
	return nil, nil, errors.New("head too long")
}

func (c *client) parse(head string) (*body, error) {
	lines := strings.Split(head, "\r\n")
	words := strings.Fields(lines[0])
	if len(words) < 2 {
		return nil, errors.New("malformed head")
	}
	c.status, _ = strconv.Atoi(words[1])
	c.keep = words[0] == "HTTP/1.1"
	b := &body{length: -1}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			b.length, _ = strconv.ParseInt(value, 10, 64)
		case strings.EqualFold(name, "Transfer-Encoding"):
			b.chunked = true
		case strings.EqualFold(name, "Connection"):
			c.keep = c.keep && !strings.EqualFold(value, "close")
		}
	}
	c.keep = c.keep && !b.untilClose()
	return b, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}

// body takes the framing off an answer, fed in whatever pieces it comes in.
type body struct {
	chunked bool
	length  int64 // of a body with a length, -1: none given
	left    int64 // of the chunk that is being read
	state   int   // of a chunked body: what comes next
	line    []byte
}

const (
	sizeLine = iota
	chunkData
	chunkEnd
	trailer
)

func (b *body) untilClose() bool { return !b.chunked && b.length < 0 }

// feed says whether the body has ended, or piece wanted no more.
func (b *body) feed(data []byte, piece func([]byte) bool) (bool, error) {
	if b.chunked {
		return b.feedChunks(data, piece)
	}
	if len(data) > 0 && !piece(data) {
		return true, nil
	}
	if b.length < 0 {
		return false, nil
	}
	b.length -= int64(len(data))
	return b.length <= 0, nil
}

func (b *body) feedChunks(data []byte, piece func([]byte) bool) (bool, error) {
	for len(data) > 0 {
		if b.state == chunkData {
			part := data[:min(int64(len(data)), b.left)]
			data, b.left = data[len(part):], b.left-int64(len(part))
			if b.left == 0 {
				b.state = chunkEnd
			}
			if !piece(part) {
				return true, nil
			}
			continue
		}
		at := bytes.IndexByte(data, '\n')
		if at < 0 {
			b.line = append(b.line, data...)
			return false, nil
		}
		line := bytes.TrimRight(append(b.line, data[:at]...), "\r")
		data, b.line = data[at+1:], b.line[:0]
		ended, err := b.endOfLine(line)
		if ended || err != nil {
			return ended, err
		}
	}
	return false, nil
}

func (b *body) endOfLine(line []byte) (ended bool, err error) {
	switch b.state {
	case sizeLine:
		size, _, _ := bytes.Cut(line, []byte(";"))
		if b.left, err = strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64); err != nil {
			return false, fmt.Errorf("malformed chunk size %q", line)
		}
		b.state = chunkData
		if b.left == 0 {
			b.state = trailer
		}
	case chunkEnd:
		b.state = sizeLine
	case trailer:
		return len(line) == 0, nil
	}
	return false, nil
}

// marks finds the times in the texts of tokens, ~nanoseconds~, in whatever pieces they come.
type marks struct {
	inside bool
	digits int
	value  int64
}

func (m *marks) feed(data []byte, found func(sent int64)) {
	for len(data) > 0 {
		if !m.inside {
			at := bytes.IndexByte(data, '~')
			if at < 0 {
				return
			}
			data = data[at+1:]
			m.inside, m.digits, m.value = true, 0, 0
			continue
		}
		char := data[0]
		data = data[1:]
		switch {
		case char >= '0' && char <= '9':
			m.digits++
			m.value = m.value*10 + int64(char-'0')
		case char == '~' && m.digits == 19:
			m.inside = false
			found(m.value)
		default:
			m.inside = char == '~'
			m.digits, m.value = 0, 0
		}
	}
}
