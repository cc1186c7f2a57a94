use std::net::IpAddr;
use std::time::Duration;

use mesh_policy::PortRange;

use super::*;

fn topology() -> Topology {
    let topology = json!({
        "users": [{ "id": 1, "name": "alice", "login": "alice@example.com", "role": "admin" }],
        "nodes": [
            { "name": "laptop", "user": "alice", "ipv4": "100.64.0.1", "ipv6": "fd7a::1", "order": 1 },
            { "name": "exit", "tags": ["tag:exit"], "ipv4": "100.64.0.2", "ipv6": "fd7a::2", "order": 2 },
        ],
    });
    Topology::parse(topology.to_string().as_bytes()).unwrap()
}

fn both(last: u8) -> Vec<IpAddr> {
    vec![format!("100.64.0.{last}").parse().unwrap(), format!("fd7a::{last}").parse().unwrap()]
}

fn check(topology: &Topology, node: u32, view: &NodeView, expected: &Value) {
    let node = topology.node(NodeId(node));
    assert_eq!(serde_json::to_value(View::new(topology, node, view)).unwrap(), *expected);
}

#[test]
fn what_is_usual_is_left_out() {
    let view = NodeView { addresses: both(1), ..NodeView::default() };
    check(&topology(), 1, &view, &json!({ "packet_filter_rules": [], "peers": {} }));
}

#[test]
fn addresses_are_told_where_some_are_hidden() {
    let shown = both(2)[1..].to_vec();
    let peer = PeerView { addresses: shown, routes: Vec::new() };
    let addresses = both(1)[1..].to_vec();
    let view = NodeView { addresses, peers: [(NodeId(2), peer)].into(), ..NodeView::default() };
    let expected = json!({
        "packet_filter_rules": [],
        "addresses": ["fd7a::1/128"],
        "peers": { "exit": { "addresses": ["fd7a::2/128"] } },
    });
    check(&topology(), 1, &view, &expected);
}

#[test]
fn an_exit_node_that_is_seen_as_one_is_suggested() {
    let routes = vec!["0.0.0.0/0".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let peer = PeerView { addresses: both(2), routes };
    let view =
        NodeView { addresses: both(1), peers: [(NodeId(2), peer)].into(), ..NodeView::default() };
    let exit =
        json!({ "routes": ["0.0.0.0/0", "10.0.0.0/8"], "cap_map": { "suggest-exit-node": null } });
    check(&topology(), 1, &view, &json!({ "packet_filter_rules": [], "peers": { "exit": exit } }));
}

#[test]
fn attributes_that_a_node_has_anyway_are_left_out() {
    let attributes: Capabilities =
        [IS_ADMIN, IS_OWNER, "https://tailscale.com/cap/ssh", AUTO_UPDATE, "funnel"]
            .map(|name| (name.into(), None))
            .into();
    let caps = |id: u8, expected: Value| {
        let view =
            NodeView { addresses: both(id), attributes: attributes.clone(), ..NodeView::default() };
        let expected = json!({ "packet_filter_rules": [], "cap_map": expected, "peers": {} });
        check(&topology(), id.into(), &view, &expected);
    };
    caps(1, json!({ IS_OWNER: null, AUTO_UPDATE: null, "funnel": null }));
    caps(2, json!({ IS_ADMIN: null, AUTO_UPDATE: null, "funnel": null }));
}

#[test]
fn a_tailnet_that_has_decided_on_updates_tells_every_node() {
    let topology = Topology { has_auto_update: true, ..topology() };
    let attributes = [(AUTO_UPDATE.into(), None)].into();
    let view = NodeView { addresses: both(1), attributes, ..NodeView::default() };
    check(&topology, 1, &view, &json!({ "packet_filter_rules": [], "peers": {} }));
}

#[test]
fn rules_read_as_on_the_wire() {
    let ports = |first, last| PortRange { first, last };
    let cap_map: Capabilities =
        [("example.com/cap".into(), Some(vec![RawJson("{\"n\":1e3}".into())]))].into();
    let packet_filter = vec![
        FilterRule {
            src_ips: ["100.64.0.2".into()].into(),
            dst_ports: vec![NetPortRange { ip: "*".into(), ports: ports(80, 81) }],
            ip_proto: Some(6),
            cap_grant: vec![],
        },
        FilterRule {
            src_ips: [].into(),
            dst_ports: vec![],
            ip_proto: None,
            cap_grant: vec![CapGrant {
                dsts: vec!["100.64.0.1/32".parse().unwrap()],
                cap_map: Arc::new(cap_map),
            }],
        },
    ];
    let view = NodeView { packet_filter, addresses: both(1), ..NodeView::default() };
    let node = &topology().nodes[0];
    let text = serde_json::to_string(&View::new(&topology(), node, &view)).unwrap();
    let expected = concat!(
        r#"{"packet_filter_rules":[{"SrcIPs":["100.64.0.2"],"#,
        r#""DstPorts":[{"IP":"*","Ports":{"First":80,"Last":81}}],"IPProto":[6]},"#,
        r#"{"SrcIPs":[],"CapGrant":[{"Dsts":["100.64.0.1/32"],"#,
        r#""CapMap":{"example.com/cap":[{"n":1e3}]}}]}],"peers":{}}"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn ssh_rules_accept_or_ask() {
    let access = |check_period| SshAccess {
        principals: both(2).into(),
        ssh_users: [("root".into(), "".into())].into(),
        check_period,
        accept_env: [].into(),
        recorders: vec![],
        enforce_recorder: false,
    };
    let ssh = vec![access(Some(Duration::ZERO)), access(None)];
    let view = NodeView { ssh, addresses: both(1), ..NodeView::default() };
    let rule = |action| {
        let principals = ["100.64.0.2", "fd7a::2"];
        json!({ "principals": principals, "sshUsers": { "root": "" }, "action": action })
    };
    let accept = json!({
        "accept": true,
        "allowAgentForwarding": true,
        "allowLocalPortForwarding": true,
        "allowRemotePortForwarding": true,
    });
    let expected = json!({
        "packet_filter_rules": [],
        "ssh_rules": [rule(json!({ "holdAndDelegate": "$CHECK_URL" })), rule(accept)],
        "peers": {},
    });
    check(&topology(), 1, &view, &expected);
}

#[test]
fn a_tailnet_with_magic_dns_tells_its_domain() {
    let topology = Topology { has_magic_dns: true, ..topology() };
    let view = NodeView { addresses: both(1), ..NodeView::default() };
    let told = serde_json::to_value(View::new(&topology, &topology.nodes[0], &view)).unwrap();
    assert_eq!(told["dns"]["Routes"]["tail78f774.ts.net."], Value::Null);
    assert_eq!(told["dns"]["Proxied"], json!(true));
}
