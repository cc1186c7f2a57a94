use std::net::SocketAddr;

use mesh_wire::{CapGrant, NetPortRange, PortRange};

use super::*;
use crate::packet::{Icmp, Transport};
use crate::rule::{BAD_ENTRIES_MAX, EntryError};

mod law;

const SYN: Transport = Transport::Tcp { is_syn: true };
const REST: Transport = Transport::Tcp { is_syn: false };
const PING: Transport = Transport::Icmp(Icmp::Other);

fn rule(sources: &[&str], destinations: &[(&str, u16, u16)], protocols: &[i32]) -> FilterRule {
    let to = |(ip, first, last): &(&str, u16, u16)| NetPortRange {
        ip: (*ip).into(),
        ports: PortRange { first: *first, last: *last },
    };
    FilterRule {
        src_ips: sources.iter().map(|source| (*source).into()).collect(),
        dst_ports: destinations.iter().map(to).collect(),
        ip_proto: protocols.into(),
        ..FilterRule::default()
    }
}

fn packet(transport: Transport, source: &str, destination: &str) -> Packet {
    let socket = |text: &str| text.parse::<SocketAddr>().expect("a socket");
    Packet { source: socket(source), destination: socket(destination), transport }
}

/// A node with an address of each family and a route.
fn node() -> Filter {
    let locals = ["10.0.0.1/32", "fd7a::1/128", "192.168.0.0/24"];
    Filter::new(locals.map(|net| net.parse().expect("a prefix")))
}

fn node_with(rules: &[FilterRule]) -> Filter {
    let mut filter = node();
    assert_eq!(filter.set("base", rules), []);
    filter
}

/// The verdict on a packet that answers nothing, where 10.0.0.7 has the capability `admin`.
fn judge(filter: &mut Filter, packet: &Packet) -> Verdict {
    let admin = IpAddr::from([10, 0, 0, 7]);
    let has_capability = |source, name: &str| source == admin && name == "admin";
    filter.check(packet, &mut Flows::new(), has_capability, Instant::now())
}

/// Whether the rule lets the packet in.
fn check(rule: &FilterRule, packet: Packet, expected: bool) {
    let expected = if expected { Verdict::Accept } else { Verdict::Drop(Reason::NoRule) };
    let verdict = judge(&mut node_with(std::slice::from_ref(rule)), &packet);
    assert_eq!(verdict, expected, "{rule:?} {packet:?}");
}

#[test]
fn rule_opens_its_ports_to_its_sources() {
    let ssh = rule(&["10.0.0.2", "fd7a::/64"], &[("10.0.0.1", 22, 23), ("fd7a::1", 22, 22)], &[]);
    for transport in [SYN, Transport::Udp] {
        check(&ssh, packet(transport, "10.0.0.2:9", "10.0.0.1:22"), true);
        check(&ssh, packet(transport, "10.0.0.2:9", "10.0.0.1:23"), true);
        check(&ssh, packet(transport, "[fd7a::2]:9", "[fd7a::1]:22"), true);
        check(&ssh, packet(transport, "10.0.0.2:9", "10.0.0.1:24"), false);
        check(&ssh, packet(transport, "10.0.0.2:9", "192.168.0.1:22"), false);
        check(&ssh, packet(transport, "10.0.0.3:22", "10.0.0.1:22"), false);
        check(&ssh, packet(transport, "[fd7a::2]:9", "[fd7a::1]:23"), false);
    }
    check(&ssh, packet(Transport::Sctp, "10.0.0.2:9", "10.0.0.1:22"), false);
    let udp = rule(&["*"], &[("*", 22, 22)], &[17]);
    check(&udp, packet(SYN, "10.0.0.2:9", "10.0.0.1:22"), false);
    check(&udp, packet(Transport::Udp, "10.0.0.2:9", "192.168.0.9:22"), true);
}

#[test]
fn ping_passes_where_any_port_is_open() {
    let udp = rule(&["10.0.0.2"], &[("10.0.0.1", 53, 53)], &[17]);
    check(&udp, packet(PING, "10.0.0.2:0", "10.0.0.1:0"), true);
    check(&udp, packet(PING, "10.0.0.3:0", "10.0.0.1:0"), false);
    check(&udp, packet(PING, "10.0.0.2:0", "192.168.0.1:0"), false);
}

#[test]
fn protocol_without_ports_needs_all_of_them() {
    let gre = Transport::Other(47);
    let from = |transport| packet(transport, "10.0.0.2:0", "10.0.0.1:0");
    check(&rule(&["*"], &[("*", 0, 65535)], &[47]), from(gre), true);
    check(&rule(&["*"], &[("*", 0, 65535)], &[]), from(gre), false);
    check(&rule(&["*"], &[("*", 1, 65535)], &[47]), from(gre), false);
    check(&rule(&["*"], &[("*", 0, 9), ("*", 10, 65535)], &[47]), from(gre), false);
}

#[test]
fn node_capability_makes_a_source() {
    let admins = rule(&["cap:admin"], &[("10.0.0.1", 22, 22)], &[]);
    check(&admins, packet(SYN, "10.0.0.7:9", "10.0.0.1:22"), true);
    check(&admins, packet(SYN, "10.0.0.8:9", "10.0.0.1:22"), false);
    check(&admins, packet(SYN, "10.0.0.7:9", "10.0.0.1:23"), false);
    check(&admins, packet(PING, "10.0.0.7:0", "10.0.0.1:0"), true);
    check(&admins, packet(PING, "10.0.0.7:0", "192.168.0.1:0"), false);
}

#[test]
fn capability_that_a_node_loses_is_no_source_any_more() {
    let mut filter = node_with(&[rule(&["cap:admin"], &[("*", 22, 22)], &[])]);
    let (syn, now) = (packet(SYN, "10.0.0.7:9", "10.0.0.1:22"), Instant::now());
    for (has_it, expected) in [
        (false, Verdict::Drop(Reason::NoRule)),
        (true, Verdict::Accept),
        (false, Verdict::Drop(Reason::NoRule)),
    ] {
        let verdict = filter.check(&syn, &mut Flows::new(), |_, _| has_it, now);
        assert_eq!(verdict, expected);
    }
}

#[test]
fn answers_need_no_rule() {
    let nothing = rule(&[], &[], &[]);
    for transport in [
        REST,
        Transport::Icmp(Icmp::EchoReply),
        Transport::Icmp(Icmp::Error),
        Transport::Tsmp,
        Transport::LaterFragment,
    ] {
        check(&nothing, packet(transport, "10.0.0.2:0", "10.0.0.1:0"), true);
    }
    for transport in [SYN, PING, Transport::Udp, Transport::Sctp, Transport::Other(47)] {
        check(&nothing, packet(transport, "10.0.0.2:0", "10.0.0.1:0"), false);
    }
}

#[test]
fn answer_to_a_datagram_comes_in_without_a_rule() {
    let (mut filter, mut flows, now) = (node(), Flows::new(), Instant::now());
    flows.note_outgoing(&packet(Transport::Udp, "10.0.0.1:9", "10.0.0.2:53"), now);
    let mut check = |source, destination| {
        let answer = packet(Transport::Udp, source, destination);
        filter.check(&answer, &mut flows, |_, _| false, now)
    };
    assert_eq!(check("10.0.0.2:53", "10.0.0.1:9"), Verdict::Accept);
    assert_eq!(check("10.0.0.2:53", "10.0.0.1:8"), Verdict::Drop(Reason::NoRule));
}

#[test]
fn jailed_peer_can_only_answer() {
    let mut filter = node_with(&[rule(&["*"], &[("*", 0, 65535)], &[])]);
    let (mut flows, now) = (Flows::new(), Instant::now());
    let mut check = |flows: &mut Flows, transport, destination, expected| {
        let packet = packet(transport, "10.0.0.2:53", destination);
        assert_eq!(filter.check_jailed(&packet, flows, now), expected, "{packet:?}");
    };
    let refused = Verdict::Drop(Reason::NoRule);
    for transport in [SYN, PING, Transport::Udp] {
        check(&mut flows, transport, "10.0.0.1:9", refused);
    }
    for transport in [REST, Transport::Icmp(Icmp::EchoReply)] {
        check(&mut flows, transport, "10.0.0.1:9", Verdict::Accept);
    }
    flows.note_outgoing(&packet(Transport::Udp, "10.0.0.1:9", "10.0.0.2:53"), now);
    check(&mut flows, Transport::Udp, "10.0.0.1:9", Verdict::Accept);
    check(&mut flows, REST, "10.0.0.9:9", Verdict::Drop(Reason::NotLocal));
}

#[test]
fn policy_that_is_taken_away_refuses_what_opens_and_not_what_runs() {
    let (mut filter, mut flows, now) = (node(), Flows::new(), Instant::now());
    let check = |filter: &mut Filter, flows: &mut Flows, expected: [bool; 3]| {
        let accepted = [SYN, REST, Transport::Udp].map(|transport| {
            let packet = packet(transport, "10.0.0.2:9", "10.0.0.1:22");
            filter.check(&packet, flows, |_, _| false, now) == Verdict::Accept
        });
        assert_eq!(accepted, expected);
    };
    filter.set("ssh", &[rule(&["10.0.0.2"], &[("10.0.0.1", 22, 22)], &[])]);
    check(&mut filter, &mut flows, [true, true, true]);
    flows.note_outgoing(&packet(Transport::Udp, "10.0.0.1:22", "10.0.0.2:9"), now);
    filter.remove("ssh");
    check(&mut filter, &mut flows, [false, true, true]);
    check(&mut filter, &mut Flows::new(), [false, true, false]);
}

#[test]
fn chunk_that_changes_leaves_the_others() {
    let (mut filter, mut flows, now) = (node(), Flows::new(), Instant::now());
    let mut check = |filter: &mut Filter, expected: [bool; 2]| {
        let open = [22, 53].map(|port| {
            let syn = packet(SYN, "10.0.0.2:9", &format!("10.0.0.1:{port}"));
            let is_user = |_, name: &str| name == "user";
            filter.check(&syn, &mut flows, is_user, now) == Verdict::Accept
        });
        assert_eq!(open, expected);
    };
    filter.set("ssh", &[rule(&["10.0.0.2"], &[("*", 22, 22)], &[])]);
    filter.set("dns", &[rule(&["*"], &[("*", 53, 53)], &[])]);
    check(&mut filter, [true, true]);
    filter.set("ssh", &[rule(&["10.0.0.3"], &[("*", 22, 22)], &[])]);
    check(&mut filter, [false, true]);
    filter.set("ssh", &[rule(&["10.0.0.2-10.0.0.4"], &[("*", 22, 22)], &[])]);
    check(&mut filter, [true, true]);
    filter.remove("dns");
    filter.remove("unknown");
    check(&mut filter, [true, false]);
    filter.set("dns", &[rule(&["cap:user"], &[("*", 53, 53)], &[])]);
    check(&mut filter, [true, true]);
    filter.set("dns", &[]);
    check(&mut filter, [true, false]);
    filter.clear();
    check(&mut filter, [false, false]);
}

#[test]
fn packet_must_be_for_the_node() {
    let mut filter = Filter::new([]);
    filter.set("all", &[rule(&["*"], &[("*", 0, 65535)], &[])]);
    let drop = Verdict::Drop;
    let mut check = |locals: &[&str], destination: &str, expected: Verdict| {
        filter.set_locals(locals.iter().map(|net| net.parse().expect("a prefix")));
        let source = if destination.starts_with('[') { "[fd7a::2]:9" } else { "10.0.0.2:9" };
        for transport in [SYN, REST, Transport::LaterFragment] {
            assert_eq!(judge(&mut filter, &packet(transport, source, destination)), expected);
        }
    };
    check(&[], "10.0.0.1:1", drop(Reason::NotLocal));
    check(&["10.0.0.0/24"], "10.0.0.1:1", Verdict::Accept);
    check(&["10.0.0.0/24"], "10.0.1.1:1", drop(Reason::NotLocal));
    check(&["0.0.0.0/0"], "[fd7a::1]:1", drop(Reason::NotLocal));
    let all = ["0.0.0.0/0", "::/0"];
    check(&all, "[fd7a::1]:1", Verdict::Accept);
    check(&all, "224.0.0.1:1", drop(Reason::Multicast));
    check(&all, "[ff02::1]:1", drop(Reason::Multicast));
    check(&all, "169.254.1.1:1", drop(Reason::LinkLocal));
    check(&all, "[fe80::1]:1", drop(Reason::LinkLocal));
    check(&all, "169.254.169.254:53", Verdict::Accept);
    check(&["10.0.0.1/32"], "169.254.169.254:53", drop(Reason::NotLocal));
}

#[test]
fn bad_entries_are_told_and_the_rest_of_their_rule_holds() {
    let mixed = rule(
        &["host", "10.0.0.9/24", "cap:", "10.0.0.2", "10.0.0.4-10.0.0.3"],
        &[("cap:admin", 1, 1), ("10.0.0.1", 9, 8), ("10.0.0.1", 22, 22), ("", 1, 1)],
        &[6, 256, -1],
    );
    let mut filter = node();
    let told = filter.set("base", &[FilterRule::default(), mixed]);
    let told: Vec<_> = told.iter().map(|bad| (bad.rule, &*bad.entry, bad.error)).collect();
    let expected = [
        ("256", EntryError::Protocol),
        ("-1", EntryError::Protocol),
        ("host", EntryError::Address),
        ("10.0.0.9/24", EntryError::HostBits),
        ("cap:", EntryError::CapabilityName),
        ("10.0.0.4-10.0.0.3", EntryError::Range),
        ("cap:admin", EntryError::CapabilityDestination),
        ("10.0.0.1", EntryError::Ports),
        ("", EntryError::Address),
    ];
    assert_eq!(told, expected.map(|(entry, error)| (1, entry, error)));
    assert_eq!(judge(&mut filter, &packet(SYN, "10.0.0.2:9", "10.0.0.1:22")), Verdict::Accept);
    let told = filter.set("base", &[rule(&["x"; 99], &[], &[])]);
    assert_eq!(told.len(), BAD_ENTRIES_MAX);
}

#[test]
fn rule_whose_protocols_are_all_bad_opens_nothing() {
    let mut filter = node();
    filter.set("base", &[rule(&["*"], &[("*", 0, 65535)], &[256])]);
    for transport in [SYN, PING, Transport::Udp, Transport::Other(0)] {
        let verdict = judge(&mut filter, &packet(transport, "10.0.0.2:0", "10.0.0.1:0"));
        assert_eq!(verdict, Verdict::Drop(Reason::NoRule));
    }
}

fn grant(sources: &[&str], destination: &str, caps: &[&str], map: &[(&str, &[i32])]) -> FilterRule {
    let values =
        |values: &[i32]| values.iter().map(|value| serde_json::json!(value).into()).collect();
    let cap_map = map.iter().map(|(name, held)| ((*name).to_owned(), Some(values(held))));
    let grant = CapGrant {
        dsts: vec![destination.parse().expect("a prefix")],
        caps: caps.iter().map(|name| (*name).to_owned()).collect(),
        cap_map: cap_map.collect(),
    };
    FilterRule { cap_grant: vec![grant], ..rule(sources, &[], &[]) }
}

#[test]
fn capabilities_of_several_rules_add_up() {
    let mut filter = node();
    filter.set("b", &[grant(&["cap:admin"], "10.0.0.1/32", &["flag", ""], &[("role", &[3])])]);
    filter.set(
        "a",
        &[
            grant(&["10.0.0.0/24"], "10.0.0.1/32", &["role"], &[("none", &[])]),
            grant(&["*"], "10.0.0.0/8", &[], &[("role", &[1, 2])]),
            grant(&["*"], "192.168.0.0/24", &["elsewhere"], &[]),
        ],
    );
    let check = |source: &str, expected: &str| {
        let source: IpAddr = source.parse().expect("an address");
        let has_capability = |_, name: &str| source.to_string() == "10.0.0.7" && name == "admin";
        let found = filter.capabilities(source, IpAddr::from([10, 0, 0, 1]), has_capability);
        assert_eq!(serde_json::to_string(&found).expect("json"), expected);
    };
    check("10.0.0.7", r#"{"flag":null,"none":[],"role":[1,2,3]}"#);
    check("10.0.0.8", r#"{"none":[],"role":[1,2]}"#);
    check("10.0.1.8", r#"{"role":[1,2]}"#);
}

#[test]
fn capabilities_open_no_ports() {
    let ping = packet(PING, "10.0.0.2:0", "10.0.0.1:0");
    check(&grant(&["*"], "0.0.0.0/0", &["flag"], &[]), ping, false);
}
