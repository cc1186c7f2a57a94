package main

import (
	"bytes"
	"cmp"
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
	"tailscale.com/tsnet"
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
		modeEcho: serveEcho, modeSink: serveSink, modeSource: serveSource, modeDrain: serveDrain,
	}[args.Mode]
	if !ok {
		return nil, fmt.Errorf("unknown mode %q", args.Mode)
	}
	server, err := n.network()
	if err != nil {
		return nil, err
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
			go answerConn(conn, args.Mode, serve)
		}
	}()
	return nil, nil
}

func answerConn(conn net.Conn, mode string, serve func(net.Conn) error) {
	defer conn.Close()
	if err := serve(conn); err != nil {
		log.Printf("%s from %v: %v", mode, conn.RemoteAddr(), err)
	}
}

// datagramBytesMax is the longest datagram.
const datagramBytesMax = 1 << 16

type listenUDPArgs struct {
	Port uint16 `json:"port"`
}

// listenUDPCommand sends back what comes to a UDP port of the node's own IPv4 address, until the node closes.
func (n *node) listenUDPCommand(_ context.Context, args listenUDPArgs) (any, error) {
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	v4, _ := server.TailscaleIPs()
	conn, err := server.ListenPacket("udp", netip.AddrPortFrom(v4, args.Port).String())
	if err != nil {
		return nil, err
	}
	go func() {
		buffer := make([]byte, datagramBytesMax)
		for {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return // the node is closing
			}
			if _, err := conn.WriteTo(buffer[:size], from); err != nil {
				log.Printf("datagram to %v: %v", from, err)
			}
		}
	}()
	return nil, nil
}

type serveRouteArgs struct {
	Prefix netip.Prefix `json:"prefix"`
}

// serveRouteCommand plays the network behind a subnet router: it echoes on every TCP port of every address in the
// prefix, until the node closes.
func (n *node) serveRouteCommand(_ context.Context, args serveRouteArgs) (any, error) {
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	server.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
		if !args.Prefix.Contains(dst.Addr()) {
			return nil, false
		}
		return func(conn net.Conn) { answerConn(conn, modeEcho, serveEcho) }, true
	})
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
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	conn, err := dialPeer(ctx, server, "tcp", args.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	if err := exchange(conn, args.Bytes); err != nil {
		return nil, err
	}
	report := transferReport{ElapsedMS: milliseconds(time.Since(start))}
	peer, err := n.peerAt(ctx, conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	report.CurAddr, report.Relay = peer.CurAddr, peer.Relay
	return report, nil
}

type datagramArgs struct {
	Addr      string `json:"addr"` // IP:port of a listen_udp
	Bytes     int64  `json:"bytes"`
	TimeoutMS int64  `json:"timeout_ms"`
}

type datagramReport struct {
	ElapsedMS float64 `json:"elapsed_ms"`
}

// datagramCommand sends one datagram and verifies what comes back.
func (n *node) datagramCommand(ctx context.Context, args datagramArgs) (any, error) {
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	conn, err := server.Dial(ctx, "udp", args.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(start.Add(time.Duration(args.TimeoutMS) * time.Millisecond)); err != nil {
		return nil, err
	}
	sent, err := io.ReadAll(io.LimitReader(noise(), args.Bytes))
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(sent); err != nil {
		return nil, err
	}
	received := make([]byte, datagramBytesMax)
	size, err := conn.Read(received)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(received[:size], sent) {
		return nil, errors.New("received another datagram than was sent")
	}
	return datagramReport{ElapsedMS: milliseconds(time.Since(start))}, nil
}

// dialPeer connects to a peer or to what a peer is the router of. tsnet dials other addresses over the host's own
// network, which is an error here.
func dialPeer(ctx context.Context, server *tsnet.Server, network, addr string) (net.Conn, error) {
	conn, err := server.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	v4, v6 := server.TailscaleIPs()
	if err != nil || local.Addr() != v4 && local.Addr() != v6 {
		conn.Close()
		return nil, fmt.Errorf("%s is no address of a peer, the host's own network was tried", addr)
	}
	return conn, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

type dialArgs struct {
	Addr      string `json:"addr"` // IP:port or MagicDNS name:port
	TimeoutMS int64  `json:"timeout_ms"`
	Network   string `json:"network"` // tcp if empty, or udp
}

type dialReport struct {
	Conn      int64   `json:"conn,omitempty"`    // its number, absent when there is no connection
	Refusal   string  `json:"refusal,omitempty"` // why there is none
	ElapsedMS float64 `json:"elapsed_ms"`
}

// dialCommand opens a connection and keeps it. That nobody answers in time is an answer too: a client drops what its
// packet filter does not allow. One over UDP, which asks nobody, is always open.
func (n *node) dialCommand(ctx context.Context, args dialArgs) (any, error) {
	server, err := n.network()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(args.TimeoutMS)*time.Millisecond)
	defer cancel()
	start := time.Now()
	conn, err := dialPeer(ctx, server, cmp.Or(args.Network, "tcp"), args.Addr)
	report := dialReport{ElapsedMS: milliseconds(time.Since(start))}
	if err != nil {
		report.Refusal = err.Error()
		return report, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns == nil {
		n.conns = map[int64]net.Conn{}
	}
	n.lastConn++
	n.conns[n.lastConn] = conn
	report.Conn = n.lastConn
	return report, nil
}

// conn returns a connection that dial opened.
func (n *node) conn(number int64) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	conn, ok := n.conns[number]
	if !ok {
		return nil, fmt.Errorf("there is no connection %d", number)
	}
	return conn, nil
}

type exchangeArgs struct {
	Conn      int64 `json:"conn"`
	Bytes     int64 `json:"bytes"`
	TimeoutMS int64 `json:"timeout_ms"`
}

// exchangeCommand moves bytes over a connection to an echo port and verifies them: over UDP in one datagram. The
// connection stays open.
func (n *node) exchangeCommand(_ context.Context, args exchangeArgs) (any, error) {
	conn, err := n.conn(args.Conn)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Duration(args.TimeoutMS) * time.Millisecond)); err != nil {
		return nil, err
	}
	return nil, exchangeEcho(conn, args.Bytes)
}

type hangUpArgs struct {
	Conn int64 `json:"conn"`
}

func (n *node) hangUpCommand(_ context.Context, args hangUpArgs) (any, error) {
	conn, err := n.conn(args.Conn)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	delete(n.conns, args.Conn)
	n.mu.Unlock()
	return nil, conn.Close()
}

// peerAt returns the peer that has an address, or that is the router of it.
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
		if slices.Contains(peer.TailscaleIPs, want.Addr()) || isRouted(peer, want.Addr()) {
			return peer, nil
		}
	}
	return nil, fmt.Errorf("no peer has the address %v", addr)
}

func isRouted(peer *ipnstate.PeerStatus, addr netip.Addr) bool {
	return peer.PrimaryRoutes != nil && peer.PrimaryRoutes.ContainsFunc(func(route netip.Prefix) bool {
		return route.Contains(addr)
	})
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
