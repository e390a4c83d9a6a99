// The mock is an upstream whose tokens carry the time at which they were sent.
//
// It speaks as much HTTP/1.1 and as much of Ollama's API as a proxy needs to see, and spends
// little on it, so that it bounds no proxy. What it does with a call stands in the prompt
// (see plan.go), which every gateway passes on, whatever it does to the rest of the body.
//
// On start it prints one line of JSON with its two ports.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where calls are answered")
	control := flag.String("control", "127.0.0.1:0", "where the journal of calls is read")
	flag.Parse()

	front, back := mustListen(*listen), mustListen(*control)
	journal := newJournal()
	go func() { log.Fatal(http.Serve(back, journal)) }()
	json.NewEncoder(os.Stdout).Encode(map[string]int{"port": portOf(front), "control_port": portOf(back)})

	for {
		conn, err := front.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go newSession(conn, journal).run()
	}
}

func mustListen(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func portOf(listener net.Listener) int {
	return listener.Addr().(*net.TCPAddr).Port
}
