//! A first message with everything that this server may say in one.

use std::sync::Arc;

use jiff::Timestamp;
use mesh_keys::{DiscoPublic, MachinePublic, NodePublic};
use serde_json::json;

use crate::*;

pub(super) fn first_message() -> MapResponse {
    MapResponse {
        node: Some(Box::new(own_node())),
        derp_map: Some(Arc::new(derp_map())),
        peers: vec![peer(), expired_peer()],
        dns_config: Some(dns_config()),
        domain: "tail.example".to_owned(),
        collect_services: Some(false),
        packet_filters: [
            ("*".to_owned(), None),
            ("base".to_owned(), Some(vec![ports_rule(), grant_rule()])),
        ]
        .into(),
        user_profiles: vec![profile(1, "ana@example.com"), profile(2, "tagged-devices")],
        health: Some(Vec::new()),
        display_messages: [
            ("*".to_owned(), None),
            ("approval".to_owned(), Some(display_message())),
        ]
        .into(),
        ssh_policy: Some(SshPolicy { rules: vec![ssh_rule()] }),
        control_time: Some(time("2026-08-19T10:11:12.345Z")),
        debug: Some(Debug { disable_log_tail: true, ..Debug::default() }),
        control_dial_plan: Some(dial_plan()),
        client_version: Some(ClientVersion { running_latest: true, ..ClientVersion::default() }),
        ping_request: Some(PingRequest {
            url: "https://unused/machine/ping/1".to_owned(),
            url_is_noise: true,
            types: "c2n".to_owned(),
            payload: Base64(b"GET /echo HTTP/1.1\r\n\r\n".to_vec()),
            ..PingRequest::default()
        }),
        ..MapResponse::default()
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn node(id: u64, name: &str, last: u8) -> Node {
    Node {
        id: NodeId(id),
        stable_id: format!("n{id}"),
        name: format!("{name}.tail.example."),
        user: UserId(1),
        key: NodePublic::from_bytes([last; 32]),
        machine: MachinePublic::from_bytes([last + 1; 32]),
        disco_key: DiscoPublic::from_bytes([last + 2; 32]),
        addresses: vec![
            format!("100.64.0.{last}/32").parse().unwrap(),
            format!("fd7a:115c:a1e0::{last:x}/128").parse().unwrap(),
        ],
        created: Some(time("2026-01-02T03:04:05Z")),
        cap: CapabilityVersion(142),
        machine_authorized: true,
        ..Node::default()
    }
}

fn own_node() -> Node {
    let ports = "https://tailscale.com/cap/funnel-ports?ports=443";
    Node {
        key_expiry: Some(time("2027-01-02T03:04:05Z")),
        home_derp: DerpRegionId(999),
        hostinfo: Some(Arc::new(Hostinfo {
            os: "linux".to_owned(),
            hostname: "zwölf".to_owned(),
            ..Hostinfo::default()
        })),
        cap_map: [
            ("https".to_owned(), None),
            (ports.to_owned(), Some(Vec::new())),
            ("default-auto-update".to_owned(), Some(vec![json!(false).into()])),
        ]
        .into(),
        online: Some(true),
        ..node(1, "one", 10)
    }
}

fn peer() -> Node {
    let services = [(Service::PEER_API_4, 4242), (Service::PEER_API_DNS, 1)];
    let services = services.map(|(proto, port)| Service {
        proto: proto.to_owned(),
        port,
        ..Service::default()
    });
    let mut allowed_ips = node(2, "two", 20).addresses;
    allowed_ips.push("10.0.0.0/24".parse().unwrap());
    Node {
        user: UserId(2),
        allowed_ips: Some(allowed_ips),
        primary_routes: vec!["10.0.0.0/24".parse().unwrap()],
        endpoints: vec!["192.0.2.7:41641".parse().unwrap(), "[2001:db8::7]:41641".parse().unwrap()],
        home_derp: DerpRegionId(999),
        tags: texts(["tag:web"]),
        hostinfo: Some(Arc::new(Hostinfo {
            os: "linux".to_owned(),
            hostname: "two".to_owned(),
            services: services.into(),
            ssh_host_keys: texts(["ssh-ed25519 AAAA"]),
            location: Some(Location {
                country_code: "AT".to_owned(),
                latitude: 48.2,
                ..Location::default()
            }),
            app_connector: Some(true),
            ..Hostinfo::default()
        })),
        online: Some(true),
        ..node(2, "two", 20)
    }
}

fn expired_peer() -> Node {
    Node {
        key_expiry: Some(time("2026-02-03T04:05:06Z")),
        expired: true,
        online: Some(false),
        last_seen: Some(time("2026-02-03T04:05:06Z")),
        ..node(3, "three", 30)
    }
}

fn derp_map() -> DerpMap {
    let node = DerpNode {
        name: "999a".to_owned(),
        region_id: DerpRegionId(999),
        host_name: "127.0.0.1".to_owned(),
        cert_name: format!("sha256-raw:{}", "ab".repeat(32)),
        ipv4: "127.0.0.1".to_owned(),
        ipv6: "none".to_owned(),
        stun_port: 3479,
        derp_port: 8443,
        can_port_80: true,
        ..DerpNode::default()
    };
    let region = DerpRegion {
        region_id: DerpRegionId(999),
        region_code: "own".to_owned(),
        region_name: "Own relay".to_owned(),
        nodes: vec![node],
        ..DerpRegion::default()
    };
    DerpMap {
        home_params: Some(DerpHomeParams { region_score: Some([(DerpRegionId(999), 0.5)].into()) }),
        regions: Some([(DerpRegionId(999), region)].into()),
        omit_default_regions: true,
    }
}

fn dns_config() -> DnsConfig {
    let resolver = Resolver { addr: "1.1.1.1".to_owned(), ..Resolver::default() };
    DnsConfig {
        resolvers: vec![resolver.clone()],
        routes: [
            ("tail.example".to_owned(), Vec::new()),
            ("corp.example".to_owned(), vec![Resolver { use_with_exit_node: true, ..resolver }]),
        ]
        .into(),
        domains: texts(["tail.example"]),
        proxied: true,
        cert_domains: texts(["one.tail.example"]),
        extra_records: vec![DnsRecord {
            name: "db.tail.example".to_owned(),
            record_type: "A".to_owned(),
            value: "100.64.0.20".to_owned(),
        }],
        ..DnsConfig::default()
    }
}

fn ports_rule() -> FilterRule {
    FilterRule {
        src_ips: ["100.64.0.0-100.64.0.30", "fd7a:115c:a1e0::/48", "cap:x"].map(Into::into).into(),
        dst_ports: vec![NetPortRange {
            ip: "100.64.0.10".into(),
            ports: PortRange { first: 22, last: 443 },
        }],
        ip_proto: vec![6],
        ..FilterRule::default()
    }
}

fn grant_rule() -> FilterRule {
    let caps = [
        ("https://tailscale.com/cap/file-send".to_owned(), None),
        ("example.com/cap/x".to_owned(), Some(vec![json!({ "routes": ["*"] }).into()])),
    ];
    FilterRule {
        src_ips: ["*"].map(Into::into).into(),
        cap_grant: vec![CapGrant {
            dsts: vec!["100.64.0.10/32".parse().unwrap()],
            cap_map: caps.into(),
            ..CapGrant::default()
        }],
        ..FilterRule::default()
    }
}

fn profile(id: u64, login_name: &str) -> UserProfile {
    UserProfile {
        id: UserId(id),
        login_name: login_name.to_owned(),
        display_name: login_name.to_owned(),
        ..UserProfile::default()
    }
}

fn display_message() -> DisplayMessage {
    DisplayMessage {
        title: "Waiting for approval".to_owned(),
        text: "Ask an administrator".to_owned(),
        severity: DisplayMessageSeverity::Low,
        ..DisplayMessage::default()
    }
}

fn ssh_rule() -> SshRule {
    SshRule {
        principals: vec![SshPrincipal {
            node_ip: "100.64.0.20".to_owned(),
            ..SshPrincipal::default()
        }],
        ssh_users: [("*".to_owned(), "=".to_owned()), ("root".to_owned(), String::new())].into(),
        action: Some(SshAction {
            accept: true,
            session_duration_ns: 3_600_000_000_000,
            allow_agent_forwarding: true,
            ..SshAction::default()
        }),
        accept_env: texts(["LANG"]),
        ..SshRule::default()
    }
}

fn dial_plan() -> ControlDialPlan {
    let candidate = ControlIpCandidate {
        ip: Some([192, 0, 2, 1].into()),
        dial_timeout_sec: 5.0,
        priority: 1,
        ..ControlIpCandidate::default()
    };
    ControlDialPlan { candidates: vec![candidate] }
}
