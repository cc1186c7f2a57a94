//! Tests of node attributes.

use ipnet::IpNet;
use mesh_model::NodeId;

use crate::fixture::{compiled, node};

const NODES: &str = "alice@example.com\nbob@example.org\ntag:web";

fn policy(sections: &str) -> String {
    format!(r#"{{"tagOwners": {{"tag:web": []}}, {sections}}}"#)
}

#[track_caller]
fn check(sections: &str, id: u32, expected: &[&str]) {
    let attributes = compiled(&policy(sections), NODES).attributes(NodeId(id));
    let texts = attributes.iter().map(|(name, values)| match values {
        None => name.to_string(),
        Some(values) => {
            let values: Vec<&str> = values.iter().map(|value| &*value.0).collect();
            format!("{name}={}", values.join(" "))
        }
    });
    assert_eq!(texts.collect::<Vec<_>>(), expected);
}

#[test]
fn attributes_of_all_entries_that_select_a_node_add_up() {
    let entries = r#""nodeAttrs": [
        {"target": ["alice@example.com"], "attr": ["one", "two"]},
        {"target": ["tag:web", "100.64.0.1"], "attr": ["two", "three?v=1"]},
        {"target": ["*"], "attr": ["all"]},
        {"target": [], "attr": ["nobody"]}
    ]"#;
    check(entries, 1, &["all", "one", "three?v=1", "two"]);
    check(entries, 2, &["all"]);
    check(entries, 3, &["all", "three?v=1", "two"]);
    check(entries, 99, &[]);
}

#[test]
fn values_of_the_same_capability_stand_together() {
    let entries = r#""nodeAttrs": [
        {"target": ["*"], "app": {"example.com/cap": [{"a": 1}], "example.com/empty": []}},
        {"target": ["tag:web"], "app": {"example.com/cap": [2]}},
        {"target": ["tag:web"], "attr": ["example.com/cap"]}
    ]"#;
    check(entries, 1, &[r#"example.com/cap={"a":1}"#, "example.com/empty"]);
    check(entries, 3, &[r#"example.com/cap={"a":1} 2"#, "example.com/empty"]);
}

#[test]
fn funnel_brings_two_more() {
    check(
        r#""nodeAttrs": [{"target": ["autogroup:member"], "attr": ["funnel"]}]"#,
        1,
        &[
            "funnel",
            "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000",
            "https://tailscale.com/cap/warn-funnel-no-https",
        ],
    );
}

#[test]
fn network_flags_are_attributes_of_every_node() {
    check(r#""randomizeClientPort": true"#, 3, &["randomize-client-port"]);
    check(r#""disableIPv4": true"#, 3, &["disable-ipv4"]);
    check(r#""OneCGNATRoute": "mac-always""#, 3, &["one-cgnat?v=true"]);
    check(r#""OneCGNATRoute": "mac-never""#, 3, &["one-cgnat?v=false"]);
    check(r#""OneCGNATRoute": """#, 3, &[]);
}

#[test]
fn ipv4_is_hidden_of_nodes_with_the_attribute() {
    let some = r#""nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4"]}]"#;
    let some = compiled(&policy(some), NODES);
    assert_eq!([1, 2, 3].map(|id| some.hides_ipv4(NodeId(id))), [false, false, true]);
    let all = compiled(&policy(r#""disableIPv4": true"#), NODES);
    assert!(all.hides_ipv4(NodeId(1)));
}

#[test]
fn the_first_pool_for_an_owner_counts() {
    let entries = r#""nodeAttrs": [
        {"target": ["100.64.0.0/10"], "ipPool": ["100.70.0.0/16"]},
        {"target": ["tag:web"], "attr": ["x"]},
        {"target": ["tag:web"], "ipPool": ["100.81.0.0/16"]},
        {"target": ["tag:web", "autogroup:member"], "ipPool": ["100.82.0.0/16"]},
        {"target": ["bob@example.org"], "ipPool": ["100.83.0.0/16"]}
    ]"#;
    let some = compiled(&policy(entries), NODES);
    let pool = |line: &str| some.ip_pool(&node(9, line).owner).to_vec();
    let expected = |text: &str| vec![text.parse::<IpNet>().unwrap()];
    assert_eq!(pool("tag:web"), expected("100.81.0.0/16"));
    assert_eq!(pool("bob@example.org"), expected("100.82.0.0/16"));
    assert_eq!(pool("tag:other"), []);
    let all = r#""nodeAttrs": [{"target": ["*"], "ipPool": ["100.90.0.0/16"]}]"#;
    let all = compiled(&policy(all), "");
    assert_eq!(all.ip_pool(&node(9, "tag:other").owner), expected("100.90.0.0/16"));
}
