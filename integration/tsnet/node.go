package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"reflect"
	"sync"

	"tailscale.com/client/tailscale"
	"tailscale.com/ipn"
	"tailscale.com/tsnet"
)

// node is the one Tailscale node of this process. Its zero value has not been brought up.
type node struct {
	mu        sync.Mutex
	server    *tsnet.Server
	local     *tailscale.LocalClient // the name that old and new versions share
	lastError string                 // what the backend said last, until the node runs
	conns     map[int64]net.Conn     // what dial opened, by the numbers it gave out
	lastConn  int64
}

// upArgs is what `tailscale up` takes.
type upArgs struct {
	ControlURL    string   `json:"control_url"`
	Dir           string   `json:"dir"` // holds the node's state: the same directory is the same node
	AuthKey       string   `json:"auth_key"`
	Hostname      string   `json:"hostname"`
	Ephemeral     bool     `json:"ephemeral"`
	AdvertiseTags []string `json:"advertise_tags"`
	ForceReauth   bool     `json:"force_reauth"`
}

type none struct{}

var errNotUp = errors.New("the node was never brought up")

// upCommand starts the node, or logs the running one in again, and returns without waiting for the outcome.
func (n *node) upCommand(ctx context.Context, args upArgs) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		if args.ForceReauth {
			return nil, errors.New("force_reauth needs a node that was brought up before")
		}
		return nil, n.start(args)
	}
	return nil, n.upAgain(ctx, args)
}

// start creates the node from its state directory and begins to log it in. n.mu is held.
func (n *node) start(args upArgs) error {
	server := &tsnet.Server{
		Dir:        args.Dir,
		Hostname:   args.Hostname,
		ControlURL: args.ControlURL,
		AuthKey:    args.AuthKey,
		Ephemeral:  args.Ephemeral,
		Logf:       log.Printf,
	}
	if err := advertiseTags(server, args.AdvertiseTags); err != nil {
		return err
	}
	local, err := server.LocalClient() // starts the server
	if err != nil {
		return err
	}
	n.server, n.local = server, local
	go n.watchErrors(local)
	return nil
}

// advertiseTags sets a field of tsnet.Server that the old version lacks.
func advertiseTags(server *tsnet.Server, tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	field := reflect.ValueOf(server).Elem().FieldByName("AdvertiseTags")
	if !field.IsValid() {
		return errors.New("this version of tsnet cannot advertise tags")
	}
	field.Set(reflect.ValueOf(tags))
	return nil
}

// upAgain does what `tailscale up` does to a running daemon: Start with the key and, when a new login
// is asked for or no key is left from an old one, an interactive login in the same breath. n.mu is held.
//
// Source: tailscale cmd/tailscale/cli/up.go, runUp.
func (n *node) upAgain(ctx context.Context, args upArgs) error {
	prefs, err := n.local.GetPrefs(ctx)
	if err != nil {
		return err
	}
	status, err := n.local.StatusWithoutPeers(ctx)
	if err != nil {
		return err
	}
	prefs.WantRunning = true
	if args.ControlURL != "" {
		prefs.ControlURL = args.ControlURL
	}
	if args.Hostname != "" {
		prefs.Hostname = args.Hostname
	}
	if args.AdvertiseTags != nil {
		prefs.AdvertiseTags = args.AdvertiseTags
	}
	if err := n.local.Start(ctx, ipn.Options{AuthKey: args.AuthKey, UpdatePrefs: prefs}); err != nil {
		return err
	}
	if args.ForceReauth || !status.HaveNodeKey {
		return n.local.StartLoginInteractive(ctx)
	}
	return nil
}

// watchErrors keeps the backend's last error, which is what `tailscale up` would end with.
func (n *node) watchErrors(local *tailscale.LocalClient) {
	watcher, err := local.WatchIPNBus(context.Background(), ipn.NotifyInitialState)
	if err != nil {
		log.Fatalf("watching the node: %v", err)
	}
	defer watcher.Close()
	for {
		notify, err := watcher.Next()
		if err != nil {
			return // the node is closing
		}
		if notify.ErrMessage != nil {
			n.setLastError(*notify.ErrMessage)
		}
		if notify.State != nil && *notify.State == ipn.Running {
			n.setLastError("")
		}
	}
}

func (n *node) setLastError(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastError = text
}

// client returns the node's LocalAPI, once it was brought up.
func (n *node) client() (*tailscale.LocalClient, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.local == nil {
		return nil, errNotUp
	}
	return n.local, nil
}

// network returns the node's own network, once it was brought up.
func (n *node) network() (*tsnet.Server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return nil, errNotUp
	}
	return n.server, nil
}

// loginCommand asks for an interactive login; the URL to visit appears in the status.
func (n *node) loginCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	return nil, local.StartLoginInteractive(ctx)
}

// logoutCommand logs out and forgets the node key; the process can be brought up again.
func (n *node) logoutCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	return nil, local.Logout(ctx)
}

type setPrefsArgs struct {
	Hostname        *string         `json:"hostname"`
	AdvertiseRoutes *[]netip.Prefix `json:"advertise_routes"`
	AcceptRoutes    *bool           `json:"accept_routes"`
}

// setPrefsCommand changes the named preferences, as `tailscale set` does.
func (n *node) setPrefsCommand(ctx context.Context, args setPrefsArgs) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	masked := new(ipn.MaskedPrefs)
	if args.Hostname != nil {
		masked.Hostname, masked.HostnameSet = *args.Hostname, true
	}
	if args.AdvertiseRoutes != nil {
		masked.AdvertiseRoutes, masked.AdvertiseRoutesSet = *args.AdvertiseRoutes, true
	}
	if args.AcceptRoutes != nil {
		masked.RouteAll, masked.RouteAllSet = *args.AcceptRoutes, true
	}
	_, err = local.EditPrefs(ctx, masked)
	return nil, err
}

// closeCommand shuts the node down; the process ends after the reply.
func (n *node) closeCommand(context.Context, none) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return nil, nil
	}
	if err := n.server.Close(); err != nil {
		return nil, fmt.Errorf("closing the node: %w", err)
	}
	return nil, nil
}
