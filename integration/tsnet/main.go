// The tsnet driver: one stock Tailscale node in one process, told what to do over stdin and stdout.
//
// It is for the scenarios in ../tests, which judge the control server by what a real client makes of
// it. The line protocol is described in ../README.md. The driver only does and reports; waiting for a
// state, and deciding whether it is right, is left to the scenarios. One process holds one node because
// Tailscale's client metrics, which prove that a delta was handled as one, are kept per process.
//
// The same sources build against two versions of tailscale.com: see ../tsnet-old/go.mod.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// lineBytesMax bounds one request line.
const lineBytesMax = 1 << 20

// request is one line of stdin.
type request struct {
	ID   int64           `json:"id"`
	Cmd  string          `json:"cmd"`
	Args json.RawMessage `json:"args"`
}

// reply is one line of stdout. Replies come in the order in which commands finish.
type reply struct {
	ID     int64  `json:"id"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Result any    `json:"result,omitempty"`
}

// handler runs one command on the node of this process.
type handler func(*node, context.Context, json.RawMessage) (any, error)

// command makes a handler of a function with typed arguments; an unknown argument is an error.
func command[A any](run func(*node, context.Context, A) (any, error)) handler {
	return func(n *node, ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			decoder := json.NewDecoder(bytes.NewReader(raw))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&args); err != nil {
				return nil, fmt.Errorf("arguments: %w", err)
			}
		}
		return run(n, ctx, args)
	}
}

var commands = map[string]handler{
	"up":            command((*node).upCommand),
	"status":        command((*node).statusCommand),
	"login":         command((*node).loginCommand),
	"logout":        command((*node).logoutCommand),
	"set_prefs":     command((*node).setPrefsCommand),
	"whois":         command((*node).whoisCommand),
	"ping":          command((*node).pingCommand),
	"resolve":       command((*node).resolveCommand),
	"netmap":        command((*node).netmapCommand),
	"packet_filter": command((*node).packetFilterCommand),
	"metrics":       command((*node).metricsCommand),
	"listen_tcp":    command((*node).listenCommand),
	"listen_udp":    command((*node).listenUDPCommand),
	"serve_route":   command((*node).serveRouteCommand),
	"transfer":      command((*node).transferCommand),
	"datagram":      command((*node).datagramCommand),
	"flood":         command((*node).floodCommand),
	"round_trips":   command((*node).roundTripsCommand),
	"dial":          command((*node).dialCommand),
	"exchange":      command((*node).exchangeCommand),
	"hang_up":       command((*node).hangUpCommand),
	"close":         command((*node).closeCommand),
}

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	var outMu sync.Mutex
	send := func(r reply) {
		outMu.Lock()
		defer outMu.Unlock()
		if err := out.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "reply:", err)
			os.Exit(1)
		}
	}

	n := new(node)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			fmt.Fprintln(os.Stderr, "request:", err)
			os.Exit(1)
		}
		go func() {
			send(answer(n, req))
			if req.Cmd == "close" {
				os.Exit(0)
			}
		}()
	}
	// The scenario is gone or closed our stdin: leave as a killed daemon would.
}

// answer runs one request to its reply.
func answer(n *node, req request) reply {
	run, ok := commands[req.Cmd]
	if !ok {
		return reply{ID: req.ID, Error: fmt.Sprintf("unknown command %q", req.Cmd)}
	}
	result, err := run(n, context.Background(), req.Args)
	if err != nil {
		return reply{ID: req.ID, Error: err.Error()}
	}
	return reply{ID: req.ID, OK: true, Result: result}
}
