//! Tests of differences: two policies and a tailnet in, text out.

use ipnet::IpNet;
use mesh_model::NodeId;

use crate::fixture::{compiled, parsed};
use crate::policy::Policy;

const NODES: &str = "
    alice@example.com
    alice@example.com
    bob@example.org
    tag:web
    tag:web
    tag:db
    tag:router route 10.0.0.0/8
    tag:exit route 0.0.0.0/0 route ::/0
";

fn policy(sections: &str) -> String {
    format!(
        r#"{{
        "groups": {{"group:dev": ["alice@example.com", "bob@example.org"]}},
        "tagOwners": {{"tag:web": [], "tag:db": [], "tag:router": [], "tag:exit": []}},
        {sections}
    }}"#
    )
}

fn acl(src: &str, dst: &str) -> String {
    format!(r#"{{"action": "accept", "src": ["{src}"], "dst": ["{dst}"]}}"#)
}

fn acls(rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> = rules.iter().map(|(src, dst)| acl(src, dst)).collect();
    format!(r#""acls": [{}]"#, rules.join(","))
}

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let old = compiled(&policy(old), NODES);
    let diff = old.diff(&old.recompiled(parsed(&policy(new)))).to_string();
    assert_eq!(diff.lines().map(str::trim).collect::<Vec<_>>(), expected);
}

#[test]
fn the_same_policy_changes_nothing() {
    let rules = acls(&[("group:dev", "tag:web:80"), ("*", "10.0.0.0/8:*")]);
    check(&rules, &rules, &["nothing changes for the 8 nodes"]);
}

#[test]
fn a_new_rule_gives_access() {
    check(
        &acls(&[]),
        &acls(&[("alice@example.com", "tag:web:80,443"), ("group:dev", "tag:db:5432")]),
        &[
            "access",
            "+ alice@example.com -> tag:web: 443, 80",
            "+ group:dev -> tag:db: 5432",
            "of 8 nodes, 6 see other peers, 3 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn a_rule_that_goes_takes_only_what_no_other_gives() {
    check(
        &acls(&[("group:dev", "tag:web:1-100"), ("alice@example.com", "tag:web:50")]),
        &acls(&[("alice@example.com", "tag:web:50")]),
        &[
            "access",
            "- group:dev -> tag:web: 1-49, 51-100",
            "- bob@example.org -> tag:web: 50",
            "of 8 nodes, 3 see other peers, 2 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn the_same_written_otherwise_is_no_access_gained_or_lost() {
    check(
        &acls(&[("alice@example.com", "tag:web:1-100"), ("bob@example.org", "tag:web:1-100")]),
        &acls(&[("group:dev", "tag:web:1-50"), ("group:dev", "tag:web:51-100")]),
        &["of 8 nodes, 0 see other peers, 2 have another packet filter, 0 have other SSH rules"],
    );
}

#[test]
fn protocols_are_told_apart_where_they_differ() {
    let grant = |ip: &str| {
        format!(r#""grants": [{{"src": ["tag:web"], "dst": ["tag:db"], "ip": [{ip}]}}]"#)
    };
    check(
        &grant(r#""80""#),
        &grant(r#""tcp:80", "sctp:9""#),
        &[
            "access",
            "+ tag:web -> tag:db: sctp:9",
            "- tag:web -> tag:db: icmp:80, ipv6-icmp:80, udp:80",
            "of 8 nodes, 0 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
    check(
        &grant(r#""80""#),
        &grant(r#""tcp:80", "udp:80", "icmp:*", "ipv6-icmp:*""#),
        &[
            "access",
            "+ tag:web -> tag:db: icmp:0-79, icmp:81-65535, ipv6-icmp:0-79, ipv6-icmp:81-65535",
            "of 8 nodes, 0 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
    check(
        &grant(r#""tcp:*""#),
        &grant(r#""tcp:*", "80""#),
        &[
            "access",
            "+ tag:web -> tag:db: icmp:80, ipv6-icmp:80, udp:80",
            "of 8 nodes, 0 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn what_lies_behind_routers_is_told_apart_from_them() {
    check(
        &acls(&[("alice@example.com", "10.0.0.0/8:*")]),
        &acls(&[
            ("alice@example.com", "10.1.0.0/16:*"),
            ("bob@example.org", "autogroup:internet:*"),
        ]),
        &[
            "access",
            "- alice@example.com -> 10.0.0.0/8 by way of tag:router: *",
            "+ bob@example.org -> the Internet by way of tag:exit: *",
            "of 8 nodes, 2 see other peers, 2 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn addresses_that_are_no_nodes_stand_for_themselves() {
    check(
        &acls(&[("10.0.0.0/8", "tag:db:1"), ("192.168.0.1", "tag:db:2")]),
        &acls(&[
            ("192.168.0.1", "tag:db:2"),
            ("100.64.0.1", "tag:db:3"),
            ("autogroup:danger-all", "tag:db:4"),
        ]),
        &[
            "access",
            "+ everybody, anybody -> tag:db: 4",
            "+ alice@example.com (1 of 2 nodes) -> tag:db: 3",
            "- 10.0.0.0/8 -> tag:db: 1",
            "of 8 nodes, 7 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn own_nodes_and_the_default_rule_are_compared_like_others() {
    check(
        r#""ssh": []"#,
        &acls(&[("autogroup:member", "autogroup:self:*")]),
        &[
            "access",
            "- everybody, 10.0.0.0/8 -> autogroup:tagged: *",
            "- bob@example.org, autogroup:tagged, 10.0.0.0/8 -> alice@example.com: *",
            "- everybody, 10.0.0.0/8 -> 10.0.0.0/8 by way of tag:router: *",
            "- everybody, 10.0.0.0/8 -> the Internet by way of tag:exit: *",
            "- alice@example.com, autogroup:tagged, 10.0.0.0/8 -> bob@example.org: *",
            "of 8 nodes, 8 see other peers, 8 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn nearly_all_are_named_by_who_is_missing() {
    let nodes =
        "alice@example.com\nbob@example.org\nowner@example.com\nadmin@example.com\ntag:web\ntag:db";
    let old = compiled(&policy(&acls(&[])), nodes);
    let rules: Vec<String> =
        ["bob@example.org", "owner@example.com", "admin@example.com", "tag:web"]
            .iter()
            .map(|src| acl(src, "tag:db:1"))
            .collect();
    let new = parsed(&policy(&format!(r#""acls": [{}]"#, rules.join(","))));
    let text = old.diff(&old.recompiled(new)).to_string();
    let second = text.lines().nth(1).map(str::trim);
    let expected = "+ admin@example.com, bob@example.org, owner@example.com, tag:web -> tag:db: 1";
    assert_eq!(second, Some(expected));
    let nodes = format!("{nodes}\ntag:router\ntag:exit\ntag:web tag:db");
    let old = compiled(&policy(&acls(&[])), &nodes);
    let rules: Vec<String> =
        ["autogroup:member", "100.64.0.5", "100.64.0.6", "100.64.0.7", "100.64.0.8"]
            .iter()
            .map(|src| acl(src, "100.64.0.1:1"))
            .collect();
    let new = parsed(&policy(&format!(r#""acls": [{}]"#, rules.join(","))));
    let text = old.diff(&old.recompiled(new)).to_string();
    let second = text.lines().nth(1).map(str::trim);
    let expected =
        "+ autogroup:member, autogroup:tagged but tag:db,tag:web -> alice@example.com: 1";
    assert_eq!(second, Some(expected));
}

#[test]
fn many_pieces_are_told_as_they_are_written() {
    let single = |ports: std::ops::RangeInclusive<u16>| -> Vec<String> {
        ports.map(|port| format!("tag:db:{}", 10 * port)).collect()
    };
    let some = single(1..=12);
    let mut rules: Vec<(&str, &str)> = some.iter().map(|dst| ("tag:web", &**dst)).collect();
    rules.push(("bob@example.org", "tag:db:80"));
    check(
        &acls(&rules),
        &acls(&[("*", "tag:db:*"), ("tag:web", "tag:db:2-3")]),
        &[
            "access",
            "+ everybody, 10.0.0.0/8 -> tag:db: * in part",
            "+ tag:web -> tag:db: 2-3",
            "of 8 nodes, 5 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
    check(
        &acls(&[("group:dev", "tag:db:*"), ("tag:web", "tag:db:7")]),
        &acls(&rules.iter().map(|(_, dst)| ("alice@example.com", *dst)).collect::<Vec<_>>()),
        &[
            "access",
            "- group:dev -> tag:db: * in part",
            "- tag:web -> tag:db: 7",
            "of 8 nodes, 4 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn capabilities_are_compared() {
    let grant = |value: &str| {
        format!(
            r#""grants": [{{"src": ["tag:web"], "dst": ["tag:db"], "app": {{"example.com/cap": [{value}]}}}}]"#
        )
    };
    check(
        &grant("1"),
        &grant(r#"{"a": 2}"#),
        &[
            "access",
            r#"+ tag:web -> tag:db: example.com/cap={"a":2}"#,
            "- tag:web -> tag:db: example.com/cap=1",
            "of 8 nodes, 0 see other peers, 1 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn logins_are_compared() {
    let ssh = |action: &str, users: &str| {
        format!(
            r#""ssh": [{{"action": "{action}", "src": ["group:dev"], "dst": ["tag:web"], "users": [{users}]}}]"#
        )
    };
    check(
        &ssh("accept", r#""root", "autogroup:nonroot""#),
        &ssh("check", r#""root", "ubuntu""#),
        &[
            "ssh",
            "+ group:dev -> tag:web: as root after a check, as ubuntu after a check",
            "- group:dev -> tag:web: as autogroup:nonroot, as root",
            "of 8 nodes, 0 see other peers, 0 have another packet filter, 2 have other SSH rules",
        ],
    );
}

#[test]
fn attributes_are_compared() {
    check(
        r#""nodeAttrs": [{"target": ["tag:web"], "attr": ["one"]}, {"target": ["*"], "attr": ["all"]}]"#,
        r#""nodeAttrs": [{"target": ["tag:web", "bob@example.org"], "app": {"one": [1]}}, {"target": ["*"], "attr": ["all"]}],
           "randomizeClientPort": true"#,
        &[
            "node attributes",
            "+ everybody: randomize-client-port",
            "+ bob@example.org, tag:web: one=1",
            "- tag:web: one",
            "of 8 nodes, 0 see other peers, 0 have another packet filter, 0 have other SSH rules",
        ],
    );
}

#[test]
fn approvals_are_added_by_those_who_know_what_is_offered() {
    let old = compiled(&policy(&acls(&[])), NODES);
    let approvers = r#""autoApprovers": {"routes": {"10.0.0.0/8": ["tag:router"]}}"#;
    let new = old.recompiled(parsed(&policy(&format!("{}, {approvers}", acls(&[])))));
    let mut diff = old.diff(&new);
    assert!(diff.is_empty());
    let offered: Vec<IpNet> =
        ["10.1.0.0/16", "192.168.0.0/16"].map(|text| text.parse().unwrap()).into();
    let pending = [7, 8, 99].map(|id| (NodeId(id), &*offered));
    diff.add_approvals(&new, pending);
    assert_eq!(
        diff.to_string().lines().take(2).collect::<Vec<_>>(),
        ["routes approved", "  + 100.64.0.7 (tag:router): 10.1.0.0/16"],
    );
}

#[test]
fn long_texts_are_cut_unless_asked_for_whole() {
    let rules: Vec<String> = (0..60).map(|index| format!("tag:web:{}", 2 * index + 1)).collect();
    let rules: Vec<(&str, &str)> = rules.iter().map(|dst| ("tag:db", &**dst)).collect();
    let old = compiled(&policy(&acls(&[])), NODES);
    let diff = old.diff(&old.recompiled(parsed(&policy(&acls(&rules)))));
    assert_eq!(diff.access.len(), 1);
    assert!(diff.to_string().contains("1, 101, 103, 105, 107, 109, 11, 111 and 52 more"));
    assert!(format!("{diff:#}").contains(", 99\n"));

    let users: Vec<String> = (1..=60)
        .map(|index| {
            format!(
                r#"{{"action": "accept", "src": ["100.64.1.{index}"], "dst": ["tag:web:{index}"]}}"#
            )
        })
        .collect();
    let nodes = "bob@example.org\n".repeat(330);
    let old = compiled(&policy(&acls(&[])), &format!("tag:web\n{nodes}"));
    let new = policy(&format!(r#""acls": [{}]"#, users.join(",")));
    let text = old.diff(&old.recompiled(parsed(&new))).to_string();
    assert!(text.contains("  and 20 more\n"), "{text}");
}

#[test]
fn a_difference_is_an_object_for_programs() {
    let old = compiled("", NODES);
    let diff = old.diff(&old.recompiled(Policy::default().into()));
    assert_eq!(
        serde_json::to_string(&diff).expect("a difference"),
        r#"{"access":[],"ssh":[],"attributes":[],"routes":[],"nodes":8,"nodes_with_other_peers":0,"nodes_with_other_filters":0,"nodes_with_other_ssh":0}"#,
    );
}
