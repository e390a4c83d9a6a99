package main

import (
	"net/http"
	"strconv"
	"time"
)

// Bodies as Ollama sends them: 656 bytes for a whole answer, about 114 for a token of a stream.
const (
	prose = "The sky appears blue because molecules of the air scatter the short waves of sunlight far more than the long ones; Lord Rayleigh found the law. " +
		"What is scattered comes to the eye from everywhere, what is not from the sun itself, now yellow."
	counters = `"total_duration":1843929041,"load_duration":51293042,"prompt_eval_count":42,` +
		`"prompt_eval_duration":113000000,"eval_count":57,"eval_duration":1678000000}`
	context = `"context":[128006,882,128007,271,10445,374,279,13180,6437,30,128009,128006,78191,128007,271,791,13180,8111,6437,1606,35715,304,279,3805,45577,2875,93959,315],`
	stamp   = "2006-01-02T15:04:05.000000000Z"
)

// fixed are the routes that gateways ask for their own ends.
var fixed = map[string]string{
	"/":            "Ollama is running",
	"/api/version": `{"version":"0.9.0"}`,
	"/api/tags":    `{"models":[` + model + `}]}`,
	"/api/ps":      `{"models":[` + model + `,"expires_at":"2099-01-01T00:00:00Z","size_vram":2019393189,"context_length":4096}]}`,
	"/api/show":    `{"details":` + details + `,"model_info":{"general.architecture":"llama","llama.context_length":131072},"capabilities":["completion"]}`,
}

const (
	details = `{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"3.2B","quantization_level":"Q4_K_M"}`
	model   = `{"name":"llama3.2:latest","model":"llama3.2:latest","modified_at":"2024-11-20T10:00:00Z","size":2019393189,"digest":"a80c4f17acd5","details":` + details
)

// appendAnswer writes one object of an answer. Its middle is told by what the others put in.
func appendAnswer(to []byte, chat bool, text func([]byte) []byte, end string) []byte {
	now := time.Now()
	to = append(to, `{"model":"llama3.2","created_at":"`...)
	to = now.UTC().AppendFormat(to, stamp)
	if chat {
		to = append(to, `","message":{"role":"assistant","content":"`...)
		to = append(text(to), `"}`...)
	} else {
		to = append(to, `","response":"`...)
		to = append(text(to), '"')
	}
	return append(to, end...)
}

func appendWhole(to []byte, chat bool) []byte {
	return appendAnswer(to, chat, func(b []byte) []byte { return append(b, prose...) }, done(chat))
}

// appendToken writes a token whose text is ~ns~, the time it is sent.
func appendToken(to []byte, chat bool) []byte {
	return appendAnswer(to, chat, func(b []byte) []byte {
		b = append(b, '~')
		b = strconv.AppendInt(b, time.Now().UnixNano(), 10)
		return append(b, '~')
	}, ",\"done\":false}\n")
}

func appendLast(to []byte, chat bool) []byte {
	return appendAnswer(to, chat, func(b []byte) []byte { return b }, done(chat)+"\n")
}

func done(chat bool) string {
	if chat {
		return `,"done":true,"done_reason":"stop",` + counters
	}
	return `,"done":true,"done_reason":"stop",` + context + counters
}

// appendHead writes a head of status 200; length < 0: chunked.
func appendHead(to []byte, kind string, length int) []byte {
	to = append(to, "HTTP/1.1 200 OK\r\nContent-Type: "...)
	to = append(to, kind...)
	to = append(to, "\r\nDate: "...)
	to = time.Now().UTC().AppendFormat(to, http.TimeFormat)
	if length < 0 {
		return append(to, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	}
	to = append(to, "\r\nContent-Length: "...)
	to = strconv.AppendInt(to, int64(length), 10)
	return append(to, "\r\n\r\n"...)
}

func appendChunk(to, payload []byte) []byte {
	to = strconv.AppendInt(to, int64(len(payload)), 16)
	to = append(to, "\r\n"...)
	to = append(to, payload...)
	return append(to, "\r\n"...)
}
