package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
)

var errMalformed = errors.New("malformed request")

// request is one that was read whole. body is only good until the next one is read.
type request struct {
	path      string
	body      []byte
	keepAlive bool
}

// readRequest reads one request; body is room that may be used again.
func readRequest(from *bufio.Reader, body []byte) (request, error) {
	line, err := from.ReadSlice('\n')
	if err != nil {
		return request{}, err
	}
	words := strings.Fields(string(line))
	if len(words) != 3 {
		return request{}, errMalformed
	}
	path, _, _ := strings.Cut(words[1], "?")
	got := request{path: path, keepAlive: words[2] == "HTTP/1.1"}
	length, chunked := 0, false
	for {
		line, err = from.ReadSlice('\n')
		if err != nil {
			return got, err
		}
		name, value, isField := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !isField {
			break
		}
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return got, errMalformed
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			got.keepAlive = !bytes.EqualFold(value, []byte("close"))
		}
	}
	if chunked {
		got.body, err = readChunked(from, body[:0])
	} else {
		if cap(body) < length {
			body = make([]byte, length)
		}
		got.body = body[:length]
		_, err = io.ReadFull(from, got.body)
	}
	return got, err
}

// readChunked is for the rare gateway that sends its requests in chunks.
func readChunked(from *bufio.Reader, body []byte) ([]byte, error) {
	whole := bytes.NewBuffer(body)
	if _, err := whole.ReadFrom(httputil.NewChunkedReader(from)); err != nil {
		return nil, err
	}
	_, err := from.ReadSlice('\n') // the empty line behind the last chunk
	return whole.Bytes(), err
}
