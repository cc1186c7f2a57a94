package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"time"
)

// modeDrain is what a listener does for flood: reads to the end, answers how many bytes came.
const modeDrain = "drain"

// loadChunkBytes is how much is written and read at a time.
const loadChunkBytes = 256 << 10

func serveDrain(conn net.Conn) error {
	size, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, make([]byte, loadChunkBytes))
	if err != nil {
		return err
	}
	return binary.Write(conn, binary.BigEndian, size)
}

type floodArgs struct {
	Addr    string `json:"addr"` // IP:port that drains
	Seconds int    `json:"seconds"`
}

type floodReport struct {
	Bytes     int64   `json:"bytes"`
	ElapsedMS float64 `json:"elapsed_ms"` // from the first byte until the peer has them all
}

// floodCommand sends as fast as it can over one TCP connection.
func (n *node) floodCommand(ctx context.Context, args floodArgs) (any, error) {
	conn, err := n.dialLoad(ctx, args.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	chunk := make([]byte, loadChunkBytes)
	start := time.Now()
	for time.Since(start) < time.Duration(args.Seconds)*time.Second {
		if _, err := conn.Write(chunk); err != nil {
			return nil, err
		}
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil, errors.New("this connection cannot be half closed")
	}
	if err := half.CloseWrite(); err != nil {
		return nil, err
	}
	var size int64
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	return floodReport{Bytes: size, ElapsedMS: milliseconds(time.Since(start))}, nil
}

type roundTripsArgs struct {
	Addr  string `json:"addr"` // IP:port that echoes
	Count int    `json:"count"`
}

type roundTripsReport struct {
	P50US float64 `json:"p50_us"`
	P99US float64 `json:"p99_us"`
}

// roundTripsCommand sends a byte and waits for it, again and again, over one TCP connection.
func (n *node) roundTripsCommand(ctx context.Context, args roundTripsArgs) (any, error) {
	conn, err := n.dialLoad(ctx, args.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, 1)
	took := make([]time.Duration, args.Count)
	for i := range took {
		start := time.Now()
		if _, err := conn.Write(buf); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return nil, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	at := func(hundredth int) float64 { return milliseconds(took[len(took)*hundredth/100]) * 1000 }
	return roundTripsReport{P50US: at(50), P99US: at(99)}, nil
}

func (n *node) dialLoad(ctx context.Context, addr string) (net.Conn, error) {
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	return dialPeer(ctx, server, "tcp", addr)
}
