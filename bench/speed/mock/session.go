package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"time"
)

// session is one connection: requests one after the other, until the peer has gone.
type session struct {
	conn    net.Conn
	reader  *bufio.Reader
	journal *journal
	out     []byte // what is written next
	piece   []byte // the object within it
}

func newSession(conn net.Conn, journal *journal) *session {
	return &session{conn: conn, reader: bufio.NewReaderSize(conn, 16<<10), journal: journal}
}

func (s *session) run() {
	defer s.conn.Close()
	var body []byte
	for {
		got, err := readRequest(s.reader, body)
		if err != nil {
			return
		}
		body = got.body
		if !s.answer(got) || !got.keepAlive {
			return
		}
	}
}

// answer says whether the connection is still good.
func (s *session) answer(got request) bool {
	if got.path == "/api/generate" || got.path == "/api/chat" {
		call := planOf(got.body)
		s.journal.begun(call.id)
		whole := s.call(call, got.path == "/api/chat")
		s.journal.over(call.id, whole)
		return whole
	}
	text, known := fixed[got.path]
	if !known {
		s.out = append(s.out[:0], "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"...)
		return s.flush()
	}
	s.out = appendHead(s.out, "application/json; charset=utf-8", len(text))
	s.out = append(s.out, text...)
	return s.flush()
}

func (s *session) call(call plan, chat bool) bool {
	pace := newPace(s.conn, s.reader, call)
	defer pace.stop()
	if !pace.sleep(call.wait) {
		return false
	}
	if !call.stream {
		s.piece = appendWhole(s.piece[:0], chat)
		s.out = appendHead(s.out, "application/json; charset=utf-8", len(s.piece))
		s.out = append(s.out, s.piece...)
		return s.flush()
	}
	s.journal.streaming(s.conn)
	defer s.journal.streamed(s.conn)
	s.out = appendHead(s.out, "application/x-ndjson", -1)
	begun := time.Now()
	for index := 0; index < call.tokens; index++ {
		if !pace.sleep(time.Until(begun.Add(call.due(index)))) {
			return false
		}
		s.piece = appendToken(s.piece[:0], chat)
		s.out = appendChunk(s.out, s.piece)
		if !s.flush() {
			return false
		}
	}
	s.piece = appendLast(s.piece[:0], chat)
	s.out = appendChunk(s.out, s.piece)
	if !s.flush() {
		return false
	}
	s.out = append(s.out, "0\r\n\r\n"...)
	return s.flush()
}

func (s *session) flush() bool {
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err == nil
}

// pace sleeps until the next token is due or the peer has gone, which a second goroutine
// watches for: by reading, as a server has to. Calls that never sleep need no watch.
type pace struct {
	conn  net.Conn
	gone  chan struct{}
	ended chan struct{}
	timer *time.Timer
}

func newPace(conn net.Conn, reader *bufio.Reader, call plan) *pace {
	if call.wait <= 0 && (!call.stream || call.rate <= 0) {
		return &pace{}
	}
	p := &pace{conn: conn, gone: make(chan struct{}), ended: make(chan struct{}), timer: time.NewTimer(0)}
	<-p.timer.C
	go func() {
		defer close(p.ended)
		if _, err := reader.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			close(p.gone)
		}
	}()
	return p
}

// sleep says whether the peer is still there.
func (p *pace) sleep(span time.Duration) bool {
	if p.gone == nil {
		return true
	}
	if span <= 0 {
		select {
		case <-p.gone:
			return false
		default:
			return true
		}
	}
	p.timer.Reset(span)
	select {
	case <-p.timer.C:
		return true
	case <-p.gone:
		return false
	}
}

// stop ends the watch, so that the connection can be read again.
func (p *pace) stop() {
	if p.gone == nil {
		return
	}
	p.timer.Stop()
	p.conn.SetReadDeadline(time.Unix(1, 0))
	<-p.ended
	p.conn.SetReadDeadline(time.Time{})
}
