package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/envknob"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
)

// statusReport is the state of the node and of those it sees.
type statusReport struct {
	State        string       `json:"state"` // ipn.State's name: NeedsLogin, Running, ...
	AuthURL      string       `json:"auth_url,omitempty"`
	Error        string       `json:"error,omitempty"` // what `tailscale up` would end with
	Health       []string     `json:"health,omitempty"`
	LogsDisabled bool         `json:"logs_disabled"` // no log upload, by environment or by the control server
	Self         *peerReport  `json:"self,omitempty"`
	Peers        []peerReport `json:"peers"` // sorted by name
}

// peerReport is one node as this node sees it.
type peerReport struct {
	Key            string             `json:"key"` // nodekey:...
	Name           string             `json:"name"`
	Hostname       string             `json:"hostname"` // as its user typed it
	Addresses      []netip.Addr       `json:"addresses"`
	User           string             `json:"user,omitempty"` // login name
	Tags           []string           `json:"tags,omitempty"`
	PrimaryRoutes  []netip.Prefix     `json:"primary_routes,omitempty"`
	ExitNodeOption bool               `json:"exit_node_option,omitempty"`
	Online         bool               `json:"online"`
	Expired        bool               `json:"expired"`
	KeyExpiry      *time.Time         `json:"key_expiry,omitempty"`
	Relay          string             `json:"relay,omitempty"`    // home DERP region's code
	CurAddr        string             `json:"cur_addr,omitempty"` // UDP address in use, absent when relayed or idle
	RxBytes        int64              `json:"rx_bytes"`
	TxBytes        int64              `json:"tx_bytes"`
	CapMap         tailcfg.NodeCapMap `json:"cap_map,omitempty"`
}

func (n *node) statusCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	status, err := local.Status(ctx)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	lastError := n.lastError
	n.mu.Unlock()
	report := statusReport{
		State:        status.BackendState,
		AuthURL:      status.AuthURL,
		Error:        lastError,
		Health:       status.Health,
		LogsDisabled: envknob.NoLogsNoSupport(),
		Peers:        []peerReport{},
	}
	if status.Self != nil {
		self := reportPeer(status, status.Self)
		report.Self = &self
	}
	for _, peer := range status.Peer {
		report.Peers = append(report.Peers, reportPeer(status, peer))
	}
	slices.SortFunc(report.Peers, func(a, b peerReport) int { return strings.Compare(a.Name, b.Name) })
	return report, nil
}

func reportPeer(status *ipnstate.Status, peer *ipnstate.PeerStatus) peerReport {
	report := peerReport{
		Key:            peer.PublicKey.String(),
		Name:           strings.TrimSuffix(peer.DNSName, "."),
		Hostname:       peer.HostName,
		Addresses:      append([]netip.Addr{}, peer.TailscaleIPs...),
		User:           status.User[peer.UserID].LoginName,
		ExitNodeOption: peer.ExitNodeOption,
		Online:         peer.Online,
		Expired:        peer.Expired,
		KeyExpiry:      peer.KeyExpiry,
		Relay:          peer.Relay,
		CurAddr:        peer.CurAddr,
		RxBytes:        peer.RxBytes,
		TxBytes:        peer.TxBytes,
		CapMap:         peer.CapMap,
	}
	if peer.Tags != nil {
		report.Tags = peer.Tags.AsSlice()
	}
	if peer.PrimaryRoutes != nil {
		report.PrimaryRoutes = peer.PrimaryRoutes.AsSlice()
	}
	return report
}

type whoisArgs struct {
	Addr string `json:"addr"` // IP or IP:port
}

// whoisReport says whose address it is.
type whoisReport struct {
	Key         string             `json:"key"`
	Name        string             `json:"name"`
	User        string             `json:"user"`
	DisplayName string             `json:"display_name,omitempty"`
	Tags        []string           `json:"tags,omitempty"`
	CapMap      tailcfg.PeerCapMap `json:"cap_map,omitempty"` // what it may do on this node
}

func (n *node) whoisCommand(ctx context.Context, args whoisArgs) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	var who *apitype.WhoIsResponse
	if who, err = local.WhoIs(ctx, args.Addr); err != nil {
		return nil, err
	}
	return whoisReport{
		Key:         who.Node.Key.String(),
		Name:        strings.TrimSuffix(who.Node.Name, "."),
		User:        who.UserProfile.LoginName,
		DisplayName: who.UserProfile.DisplayName,
		Tags:        who.Node.Tags,
		CapMap:      who.CapMap,
	}, nil
}

type pingArgs struct {
	IP   netip.Addr `json:"ip"`
	Type string     `json:"type"` // disco (default), TSMP, ICMP or peerapi
}

// pingTimeout bounds the wait for a pong; a ping is sent once.
const pingTimeout = 5 * time.Second

// pingReport says how a peer was reached.
type pingReport struct {
	Endpoint   string  `json:"endpoint,omitempty"`    // UDP address, when direct
	DERPRegion string  `json:"derp_region,omitempty"` // region code, when relayed
	LatencyMS  float64 `json:"latency_ms"`
}

func (n *node) pingCommand(ctx context.Context, args pingArgs) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	kind := tailcfg.PingDisco
	if args.Type != "" {
		kind = tailcfg.PingType(args.Type)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	result, err := local.Ping(ctx, args.IP, kind)
	if err != nil {
		return nil, err
	}
	if result.Err != "" {
		return nil, fmt.Errorf("ping: %s", result.Err)
	}
	return pingReport{
		Endpoint:   result.Endpoint,
		DERPRegion: result.DERPRegionCode,
		LatencyMS:  result.LatencySeconds * 1000,
	}, nil
}

type resolveArgs struct {
	Name string `json:"name"`
	Type string `json:"type"` // A (default) or AAAA
}

type resolveReport struct {
	RCode     string       `json:"rcode"` // Success, NameError, ...
	Addresses []netip.Addr `json:"addresses"`
}

// resolveCommand asks the resolver that the node itself runs at 100.100.100.100.
func (n *node) resolveCommand(ctx context.Context, args resolveArgs) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	kind := args.Type
	if kind == "" {
		kind = "A"
	}
	packet, _, err := local.QueryDNS(ctx, args.Name, kind)
	if err != nil {
		return nil, err
	}
	var message dnsmessage.Message
	if err := message.Unpack(packet); err != nil {
		return nil, err
	}
	report := resolveReport{RCode: strings.TrimPrefix(message.RCode.String(), "RCode"), Addresses: []netip.Addr{}}
	for _, answer := range message.Answers {
		switch body := answer.Body.(type) {
		case *dnsmessage.AResource:
			report.Addresses = append(report.Addresses, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			report.Addresses = append(report.Addresses, netip.AddrFrom16(body.AAAA))
		}
	}
	return report, nil
}

// netmapCommand returns the client's own netmap as it is. The old version cannot.
func (n *node) netmapCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	return local.DebugResultJSON(ctx, "current-netmap")
}

func (n *node) packetFilterCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	return local.DebugPacketFilterRules(ctx)
}

// metricsCommand returns the client metrics of this process by name.
func (n *node) metricsCommand(ctx context.Context, _ none) (any, error) {
	local, err := n.client()
	if err != nil {
		return nil, err
	}
	text, err := local.DaemonMetrics(ctx)
	if err != nil {
		return nil, err
	}
	metrics := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseInt(value, 10, 64); err == nil {
			metrics[name] = number
		}
	}
	return metrics, lines.Err()
}
