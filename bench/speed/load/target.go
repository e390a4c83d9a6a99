package main

import (
	"fmt"
	"strings"
)

// target is a proxy, or the upstream itself.
type target struct {
	addr, route, model string
}

// ask is what one request wants of the mock, see mock/plan.go.
type ask struct {
	stream bool
	tokens int
	rate   float64
	waitMs int
	id     string
}

const question = "Explain in plain words why the sky is blue at noon and red at sunset, what Rayleigh " +
	"scattering is, why violet light does not dominate, and which part the ozone layer has in it; " +
	"answer in short paragraphs and give an everyday example for each of them."

// request is the bytes of one call.
func (t target) request(a ask) []byte {
	prompt := fmt.Sprintf("[[tokens=%d rate=%g wait=%d id=%s]] %s", a.tokens, a.rate, a.waitMs, a.id, question)
	limit := fmt.Sprintf(`"options":{"temperature":0.7,"num_predict":%d}`, a.tokens)
	if strings.HasPrefix(t.route, "/v1/") {
		limit = fmt.Sprintf(`"max_tokens":%d`, a.tokens)
	}
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"stream":%v,%s}`,
		t.model, prompt, a.stream, limit)
	return []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\nAccept: application/json\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.route, t.addr, len(body), body))
}
