package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"tailscale.com/ipn/ipnstate"
)

// The three things a listener can do with a connection. The dialer speaks first in all of them.
const (
	modeEcho   = "echo"   // sends back what comes
	modeSink   = "sink"   // reads to the end, answers the SHA-256 of it
	modeSource = "source" // reads a big-endian u64, sends that many bytes of noise()
)

// noise returns a stream of bytes without pattern, the same one every time.
func noise() io.Reader { return rand.NewChaCha8([32]byte{}) }

type listenArgs struct {
	Port uint16 `json:"port"`
	Mode string `json:"mode"`
}

// listenCommand serves a TCP port on the node's own addresses until the node closes.
func (n *node) listenCommand(_ context.Context, args listenArgs) (any, error) {
	serve, ok := map[string]func(net.Conn) error{
		modeEcho: serveEcho, modeSink: serveSink, modeSource: serveSource,
	}[args.Mode]
	if !ok {
		return nil, fmt.Errorf("unknown mode %q", args.Mode)
	}
	n.mu.Lock()
	server := n.server
	n.mu.Unlock()
	if server == nil {
		return nil, errNotUp
	}
	listener, err := server.Listen("tcp", fmt.Sprintf(":%d", args.Port))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the node is closing
			}
			go func() {
				defer conn.Close()
				if err := serve(conn); err != nil {
					log.Printf("%s from %v: %v", args.Mode, conn.RemoteAddr(), err)
				}
			}()
		}
	}()
	return nil, nil
}

func serveEcho(conn net.Conn) error {
	_, err := io.Copy(conn, conn)
	return err
}

func serveSink(conn net.Conn) error {
	hash := sha256.New()
	if _, err := io.Copy(hash, conn); err != nil {
		return err
	}
	_, err := conn.Write(hash.Sum(nil))
	return err
}

func serveSource(conn net.Conn) error {
	var size uint64
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return err
	}
	_, err := io.CopyN(conn, noise(), int64(size))
	return err
}

type transferArgs struct {
	Addr  string `json:"addr"` // IP:port or MagicDNS name:port
	Bytes int64  `json:"bytes"`
	Mode  string `json:"mode"` // what the listener does
}

type transferReport struct {
	ElapsedMS float64 `json:"elapsed_ms"`         // from the dial to the last verified byte
	CurAddr   string  `json:"cur_addr,omitempty"` // the peer's UDP address in use, absent when relayed
	Relay     string  `json:"relay,omitempty"`    // the peer's home DERP region's code
}

// transferCommand moves bytes over one TCP connection and verifies them.
func (n *node) transferCommand(ctx context.Context, args transferArgs) (any, error) {
	exchange, ok := map[string]func(net.Conn, int64) error{
		modeEcho: exchangeEcho, modeSink: exchangeSink, modeSource: exchangeSource,
	}[args.Mode]
	if !ok {
		return nil, fmt.Errorf("unknown mode %q", args.Mode)
	}
	n.mu.Lock()
	server := n.server
	n.mu.Unlock()
	if server == nil {
		return nil, errNotUp
	}
	start := time.Now()
	conn, err := server.Dial(ctx, "tcp", args.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	if _, host := conn.(*net.TCPConn); host {
		return nil, fmt.Errorf("dial: %s is no address of a peer, the host's own network was tried", args.Addr)
	}
	if err := exchange(conn, args.Bytes); err != nil {
		return nil, err
	}
	report := transferReport{ElapsedMS: float64(time.Since(start).Microseconds()) / 1000}
	peer, err := n.peerAt(ctx, conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	report.CurAddr, report.Relay = peer.CurAddr, peer.Relay
	return report, nil
}

// peerAt returns the peer that has an address.
func (n *node) peerAt(ctx context.Context, addr net.Addr) (*ipnstate.PeerStatus, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	status, err := local.Status(ctx)
	if err != nil {
		return nil, err
	}
	want, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return nil, err
	}
	for _, peer := range status.Peer {
		if slices.Contains(peer.TailscaleIPs, want.Addr()) {
			return peer, nil
		}
	}
	return nil, fmt.Errorf("no peer has the address %v", addr)
}

// sendNoise sends size bytes of noise().
func sendNoise(conn net.Conn, size int64) error {
	if _, err := io.CopyN(conn, noise(), size); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receiveNoise reads size bytes, which must be those of noise().
func receiveNoise(conn net.Conn, size int64) error {
	want, got := sha256.New(), sha256.New()
	if _, err := io.CopyN(want, noise(), size); err != nil {
		return err
	}
	if received, err := io.CopyN(got, conn, size); err != nil {
		return fmt.Errorf("receive: %w after %d bytes of %d", err, received, size)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return errors.New("received other bytes than were sent")
	}
	return nil
}

func exchangeEcho(conn net.Conn, size int64) error {
	sent := make(chan error, 1)
	go func() { sent <- sendNoise(conn, size) }()
	return errors.Join(receiveNoise(conn, size), <-sent)
}

func exchangeSink(conn net.Conn, size int64) error {
	want := sha256.New()
	if _, err := io.CopyN(want, noise(), size); err != nil {
		return err
	}
	if err := sendNoise(conn, size); err != nil {
		return err
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T cannot be half closed", conn)
	}
	if err := half.CloseWrite(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	got, err := io.ReadAll(io.LimitReader(conn, sha256.Size))
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if !bytes.Equal(got, want.Sum(nil)) {
		return errors.New("the peer received other bytes than were sent")
	}
	return nil
}

func exchangeSource(conn net.Conn, size int64) error {
	if err := binary.Write(conn, binary.BigEndian, uint64(size)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return receiveNoise(conn, size)
}
