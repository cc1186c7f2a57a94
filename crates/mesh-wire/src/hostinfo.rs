//! What a node says of itself: system, network, services, wishes.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `Hostinfo`, `NetInfo`, `Service`, `Location`.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::DerpRegionId;
use crate::codec::wire_struct;

/// Most routes that one node may offer. Real subnet routers offer tens, app connectors some thousands.
pub const ROUTABLE_IPS_MAX: usize = 10_000;
/// Most tags that one node may ask for.
pub const REQUEST_TAGS_MAX: usize = 256;
/// Most services that one node may list. Clients list their listening ports, a busy host has hundreds.
pub const SERVICES_MAX: usize = 4096;
/// Most SSH host keys of one node; OpenSSH makes three.
pub const SSH_HOST_KEYS_MAX: usize = 64;
/// Most wake-on-LAN addresses of one node.
pub const WOL_MACS_MAX: usize = 256;
/// Most latencies in one report: two per region, and the public map has some thirty regions.
pub const DERP_LATENCY_MAX: usize = 4096;

wire_struct! {
    /// What a node says of itself. A client sends all of it with every request; peers are sent a part.
    ///
    /// `TPM` is not read: nobody here asks for it, and the Rust client gives it another shape than Go's.
    ///
    /// Every field that is forwarded to peers and changes often turns into an upsert on each of them.
    pub struct Hostinfo {
        /// The client's version, long form.
        pub ipn_version: String = "IPNVersion";
        /// Log id of the GUI.
        pub frontend_log_id: String = "FrontendLogID";
        /// Log id of the daemon.
        pub backend_log_id: String = "BackendLogID";
        /// Operating system: `linux`, `windows`, `macOS`, `iOS`, `android`, ... Peers need it.
        pub os: String = "OS";
        /// Version of the operating system.
        pub os_version: String = "OSVersion";
        /// Whether the client runs in a container.
        pub container: Option<bool> = "Container";
        /// Kind of host: `k8s`, `aws-ecs`, ...
        pub env: String = "Env";
        /// Linux distribution.
        pub distro: String = "Distro";
        /// Version of the distribution.
        pub distro_version: String = "DistroVersion";
        /// Code name of the distribution.
        pub distro_code_name: String = "DistroCodeName";
        /// Program that embeds the client; tsnet names itself so.
        pub app: String = "App";
        /// Whether a desktop was found on Linux.
        pub desktop: Option<bool> = "Desktop";
        /// How the client was packaged.
        pub package: String = "Package";
        /// Model of a phone.
        pub device_model: String = "DeviceModel";
        /// Token for push notifications; of no use to peers.
        pub push_device_token: String = "PushDeviceToken";
        /// The host's name, from which the node's name is made.
        pub hostname: String = "Hostname";
        /// Whether the client refuses incoming connections; it enforces that itself.
        pub shields_up: bool = "ShieldsUp";
        /// Whether the node is in a netmap only because something was shared with its owner.
        pub sharee_node: bool = "ShareeNode";
        /// Whether the client opted out of logs and support.
        pub no_logs_no_support: bool = "NoLogsNoSupport";
        /// Whether the client lets the control server change its preferences.
        pub remote_config: bool = "RemoteConfig";
        /// Whether the node wants to be reachable by Funnel later.
        pub wire_ingress: bool = "WireIngress";
        /// Whether a Funnel endpoint is on.
        pub ingress_enabled: bool = "IngressEnabled";
        /// Whether the client lets the control server update it.
        pub allows_update: bool = "AllowsUpdate";
        /// Machine type, as `uname -m` tells it.
        pub machine: String = "Machine";
        /// Processor architecture, as Go names it.
        pub go_arch: String = "GoArch";
        /// Variant of the architecture.
        pub go_arch_var: String = "GoArchVar";
        /// Go version of the client.
        pub go_version: String = "GoVersion";
        /// Routes that the node offers; `0.0.0.0/0` with `::/0` make an exit node.
        pub routable_ips: Vec<IpNet> = "RoutableIPs" (max ROUTABLE_IPS_MAX);
        /// Tags that the node asks for.
        pub request_tags: Vec<String> = "RequestTags" (max REQUEST_TAGS_MAX);
        /// Addresses for wake-on-LAN.
        pub wol_macs: Vec<String> = "WoLMACs" (max WOL_MACS_MAX);
        /// Services, among them the peer API that peers need to find.
        pub services: Vec<Service> = "Services" (max SERVICES_MAX);
        /// What the node knows of its network. Not for peers.
        pub net_info: Option<NetInfo> = "NetInfo";
        /// Public SSH host keys; not empty means that the node's SSH server is on.
        pub ssh_host_keys: Vec<String> = "sshHostKeys" (max SSH_HOST_KEYS_MAX);
        /// Cloud provider.
        pub cloud: String = "Cloud";
        /// Whether the client runs on a userspace network stack.
        pub userspace: Option<bool> = "Userspace";
        /// Whether the subnet router runs on a userspace network stack.
        pub userspace_router: Option<bool> = "UserspaceRouter";
        /// Whether the node is an app connector.
        pub app_connector: Option<bool> = "AppConnector";
        /// Changes when the node's tailnet services do: ask it `/vip-services` then.
        pub services_hash: String = "ServicesHash";
        /// Whether the node relays traffic for others.
        pub peer_relay: bool = "PeerRelay";
        /// Stable id of the exit node in use, or empty.
        pub exit_node_id: String = "ExitNodeID";
        /// Where the node is; for exit nodes.
        pub location: Option<Location> = "Location";
        /// Whether the client's state is encrypted at rest.
        pub state_encrypted: Option<bool> = "StateEncrypted";
    }
}

wire_struct! {
    /// What a node knows of the network it is in.
    pub struct NetInfo {
        /// Whether the NAT maps each destination differently.
        pub mapping_varies_by_dest_ip: Option<bool> = "MappingVariesByDestIP";
        /// Whether IPv6 reaches the internet.
        pub working_ipv6: Option<bool> = "WorkingIPv6";
        /// Whether the system speaks IPv6 at all.
        pub os_has_ipv6: Option<bool> = "OSHasIPv6";
        /// Whether UDP reaches the internet.
        pub working_udp: Option<bool> = "WorkingUDP";
        /// Whether `ICMPv4` reaches the internet.
        pub working_icmpv4: Option<bool> = "WorkingICMPv4";
        /// Whether a port mapping is open.
        pub have_port_map: bool = "HavePortMap";
        /// Whether `UPnP` was found.
        pub upnp: Option<bool> = "UPnP";
        /// Whether NAT-PMP was found.
        pub pmp: Option<bool> = "PMP";
        /// Whether PCP was found.
        pub pcp: Option<bool> = "PCP";
        /// The node's home region; zero is unknown and changes nothing.
        pub preferred_derp: DerpRegionId = "PreferredDERP";
        /// `wired`, `wifi` or `mobile`.
        pub link_type: String = "LinkType";
        /// Latency in seconds by `<region>-v4` or `<region>-v6`.
        pub derp_latency: BTreeMap<String, f64> = "DERPLatency" (max DERP_LATENCY_MAX);
        /// Which firewall tool is used and why.
        pub firewall_mode: String = "FirewallMode";
    }
}

wire_struct! {
    /// A port on which a node listens, or a property of it dressed as one.
    pub struct Service {
        /// `tcp`, `udp` or one of the constants here.
        pub proto: String = "Proto" (always);
        /// The port; 1 for [`Service::PEER_API_DNS`].
        pub port: u16 = "Port" (always);
        /// Usually the name of the process.
        pub description: String = "Description";
    }
}

impl Service {
    /// Protocol of the peer API's port on the node's IPv4 address.
    pub const PEER_API_4: &'static str = "peerapi4";
    /// Protocol of the peer API's port on the node's IPv6 address.
    pub const PEER_API_6: &'static str = "peerapi6";
    /// Protocol that says: the peer API answers DNS for those who use the node as exit node.
    pub const PEER_API_DNS: &'static str = "peerapi-dns-proxy";
}

wire_struct! {
    /// Where an exit node is.
    pub struct Location {
        /// Country in words.
        pub country: String = "Country";
        /// Country as two letters.
        pub country_code: String = "CountryCode";
        /// City in words.
        pub city: String = "City";
        /// City as a short code, unique in its country.
        pub city_code: String = "CityCode";
        /// Degrees north.
        pub latitude: f64 = "Latitude";
        /// Degrees east.
        pub longitude: f64 = "Longitude";
        /// Among equals the higher one is taken.
        pub priority: i64 = "Priority";
    }
}
