//! Tests of explanations: policy, tailnet and question in, text out.

use mesh_model::NodeId;

use super::{Party, Question};
use crate::fixture::{compiled, parsed};

const NODES: &str = "
    alice@example.com os linux
    alice@example.com os macOS
    bob@example.org
    tag:web
    tag:db
    tag:router route 10.0.0.0/8
    tag:exit route 0.0.0.0/0 route ::/0
";

const POLICY: &str = r#"{
    "groups": {"group:dev": ["alice@example.com", "bob@example.org"]},
    "hosts": {"intranet": "10.1.0.0/16"},
    "tagOwners": {"tag:web": [], "tag:db": [], "tag:router": [], "tag:exit": []},
    "postures": {"posture:mac": ["node:os == 'macos'"]},
    "grants": [
        {"src": ["group:dev"], "dst": ["tag:web"], "ip": ["tcp:443", "80"]},
        {"src": ["alice@example.com"], "dst": ["tag:db"], "ip": ["tcp:5432"], "srcPosture": ["posture:mac"]},
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
        {"src": ["group:dev"], "dst": ["intranet"], "ip": ["*"], "via": ["tag:router"]},
        {"src": ["bob@example.org"], "dst": ["172.16.0.0/12"], "ip": ["*"]},
        {"src": ["tag:web"], "dst": ["tag:db"], "app": {"example.com/cap": []}},
        {"src": ["bob@example.org"], "dst": ["autogroup:internet"], "ip": ["*"]},
        {"src": ["alice@example.com"], "dst": ["1.1.1.1"], "ip": ["*"]},
        {"src": ["bob@example.org"], "dst": ["10.1.0.0/16"], "ip": ["*"], "via": ["tag:exit"]},
        {"src": ["alice@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:exit"]},
    ],
    "acls": [
        {"action": "accept", "src": ["*"], "dst": ["tag:web:22", "tag:web:8000-8100"]},
    ],
}"#;

/// A party: a number is a node.
fn party(text: &str) -> Party {
    match text.parse() {
        Ok(id) => Party::Node(NodeId(id)),
        Err(_) => Party::parse(&parsed(POLICY), text).expect("a party"),
    }
}

#[track_caller]
fn check(src: &str, dst: &str, port: Option<u16>, proto: Option<u8>, expected: &[&str]) {
    let question = Question { src: party(src), dst: party(dst), port, proto };
    let explanation = compiled(POLICY, NODES).explain(&question).to_string();
    let lines: Vec<&str> = explanation.lines().map(str::trim).collect();
    assert_eq!(lines, expected);
}

#[test]
fn rules_that_allow_it_are_named_with_what_matches() {
    check(
        "alice@example.com",
        "tag:web",
        None,
        None,
        &[
            "alice@example.com -> tag:web: allowed",
            "grants[0] (line 7): group:dev -> tag:web, ports tcp:443, 80",
            "acls[0] (line 19): * -> tag:web, ports 22, 8000-8100",
        ],
    );
    check(
        "1",
        "4",
        Some(443),
        Some(6),
        &[
            "100.64.0.1 (alice@example.com) -> 100.64.0.4 (tag:web):443 over tcp: allowed",
            "grants[0] (line 7): group:dev -> tag:web, ports tcp:443",
        ],
    );
}

#[test]
fn rules_that_open_other_ports_are_near_misses() {
    check(
        "3",
        "100.64.0.4",
        Some(443),
        Some(17),
        &[
            "100.64.0.3 (bob@example.org) -> 100.64.0.4:443 over udp: refused",
            "no rule allows it",
            "near miss: grants[0] (line 7): it opens only tcp:443, 80",
            "near miss: acls[0] (line 19): it opens only 22, 8000-8100",
            "near miss: grants[2] (line 9): autogroup:self does not hold 100.64.0.4: it is tagged, so it is nobody's own",
        ],
    );
}

#[test]
fn sources_that_do_not_match_are_near_misses() {
    check(
        "tag:db",
        "tag:web",
        Some(80),
        None,
        &[
            "tag:db -> tag:web:80: refused",
            "no rule allows it",
            "near miss: acls[0] (line 19): it opens only 22, 8000-8100",
            "near miss: grants[0] (line 7): its sources do not hold tag:db",
        ],
    );
}

#[test]
fn capabilities_open_no_ports() {
    check(
        "4",
        "5",
        Some(80),
        None,
        &[
            "100.64.0.4 (tag:web) -> 100.64.0.5 (tag:db):80: refused",
            "no rule allows it",
            "near miss: grants[5] (line 12): it opens no ports, only example.com/cap",
            "near miss: grants[1] (line 8): its sources do not hold 100.64.0.4 (tag:web)",
            "note: they are peers by grants[5] (line 12)",
        ],
    );
}

#[test]
fn a_posture_that_is_not_met_is_a_near_miss() {
    check(
        "1",
        "tag:db",
        Some(5432),
        None,
        &[
            "100.64.0.1 (alice@example.com) -> tag:db:5432: refused",
            "no rule allows it",
            "near miss: grants[1] (line 8): 100.64.0.1 (alice@example.com) does not meet posture:mac",
            "near miss: grants[2] (line 9): autogroup:self does not hold tag:db: it is tagged, so it is nobody's own",
            "near miss: grants[5] (line 12): its sources do not hold 100.64.0.1 (alice@example.com)",
        ],
    );
}

#[test]
fn what_only_some_may_is_partly_allowed() {
    check(
        "alice@example.com",
        "tag:db",
        Some(5432),
        None,
        &[
            "alice@example.com -> tag:db:5432: partly allowed, for 1 of 2 pairs of source and destination",
            "grants[1] (line 8): alice@example.com -> tag:db, ports tcp:5432",
            "near miss: grants[2] (line 9): autogroup:self does not hold tag:db: it is tagged, so it is nobody's own",
            "near miss: grants[5] (line 12): its sources do not hold alice@example.com",
        ],
    );
}

#[test]
fn own_nodes_are_those_of_the_same_user() {
    check(
        "1",
        "2",
        Some(22),
        None,
        &[
            "100.64.0.1 (alice@example.com) -> 100.64.0.2 (alice@example.com):22: allowed",
            "grants[2] (line 9): autogroup:member -> autogroup:self, ports *",
        ],
    );
    check(
        "group:dev",
        "autogroup:member",
        Some(22),
        None,
        &[
            "group:dev -> autogroup:member:22: partly allowed, for 5 of 9 pairs of source and destination",
            "grants[2] (line 9): autogroup:member -> autogroup:self, ports *",
        ],
    );
    check(
        "1",
        "3",
        Some(22),
        None,
        &[
            "100.64.0.1 (alice@example.com) -> 100.64.0.3 (bob@example.org):22: refused",
            "no rule allows it",
            "near miss: grants[2] (line 9): autogroup:self does not hold 100.64.0.3 (bob@example.org): it belongs to another user",
            "note: they are not peers: neither knows of the other",
        ],
    );
}

#[test]
fn tagged_nodes_are_nobodys_own() {
    check(
        "1",
        "5",
        Some(22),
        None,
        &[
            "100.64.0.1 (alice@example.com) -> 100.64.0.5 (tag:db):22: refused",
            "no rule allows it",
            "near miss: grants[1] (line 8): 100.64.0.1 (alice@example.com) does not meet posture:mac",
            "near miss: grants[2] (line 9): autogroup:self does not hold 100.64.0.5 (tag:db): it is tagged, so it is nobody's own",
            "near miss: grants[5] (line 12): its sources do not hold 100.64.0.1 (alice@example.com)",
            "note: they are not peers: neither knows of the other",
        ],
    );
}

#[test]
fn tagged_sources_have_no_nodes_of_their_own() {
    let policy = r#"{
        "tagOwners": {"tag:web": [], "tag:db": [], "tag:router": [], "tag:exit": []},
        "acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:self:*"]}]
    }"#;
    let question = Question { src: party("4"), dst: party("1"), port: None, proto: None };
    assert_eq!(
        compiled(policy, NODES).explain(&question).near_misses[0].why,
        "autogroup:self does not hold 100.64.0.1 (alice@example.com): the source is tagged, so it has no nodes of its own",
    );
}

#[test]
fn protocols_are_read_as_policies_write_them() {
    assert_eq!(Question::parse_protocol("TCP"), Ok(6));
    assert_eq!(Question::parse_protocol("47"), Ok(47));
    assert!(Question::parse_protocol("tcpp").is_err());
    check(
        "tag:web",
        "tag:db",
        Some(1),
        Some(47),
        &[
            "tag:web -> tag:db:1 over 47: refused",
            "no rule allows it",
            "near miss: grants[5] (line 12): it opens no ports, only example.com/cap",
            "near miss: grants[1] (line 8): its sources do not hold tag:web",
        ],
    );
}

#[test]
fn addresses_behind_routers_need_an_active_route() {
    check(
        "group:dev",
        "10.1.2.3",
        Some(80),
        None,
        &[
            "group:dev -> 10.1.2.3:80: allowed",
            "grants[3] (line 10): group:dev -> intranet, ports *, via tag:router",
        ],
    );
    check(
        "bob@example.org",
        "172.16.0.1",
        None,
        None,
        &[
            "bob@example.org -> 172.16.0.1: refused",
            "no rule allows it",
            "near miss: grants[4] (line 11): no active route leads to 172.16.0.1",
            "note: no node has this address, and no active route leads to 172.16.0.1: a route must be offered by a node and approved",
        ],
    );
}

#[test]
fn exit_nodes_serve_rules_for_the_whole_internet() {
    check(
        "bob@example.org",
        "1.1.1.1",
        Some(53),
        Some(17),
        &[
            "bob@example.org -> 1.1.1.1:53 over udp: allowed",
            "grants[6] (line 13): bob@example.org -> autogroup:internet, ports *",
        ],
    );
    check(
        "alice@example.com",
        "1.1.1.1",
        None,
        None,
        &[
            "alice@example.com -> 1.1.1.1: allowed",
            "grants[9] (line 16): alice@example.com -> autogroup:internet, ports *, via tag:exit",
        ],
    );
    check(
        "bob@example.org",
        "10.1.0.1",
        None,
        None,
        &[
            "bob@example.org -> 10.1.0.1: allowed",
            "grants[3] (line 10): group:dev -> intranet, ports *, via tag:router",
        ],
    );
}

#[test]
fn peers_by_the_other_direction_are_told() {
    check(
        "5",
        "4",
        Some(443),
        None,
        &[
            "100.64.0.5 (tag:db) -> 100.64.0.4 (tag:web):443: refused",
            "no rule allows it",
            "near miss: acls[0] (line 19): it opens only 22, 8000-8100",
            "near miss: grants[0] (line 7): its sources do not hold 100.64.0.5 (tag:db)",
            "note: they are peers by acls[0] (line 19)",
        ],
    );
    check(
        "5",
        "2",
        None,
        None,
        &[
            "100.64.0.5 (tag:db) -> 100.64.0.2 (alice@example.com): refused",
            "no rule allows it",
            "note: they are peers only by grants[1] (line 8), which is for the other direction",
        ],
    );
    check(
        "7",
        "3",
        None,
        None,
        &[
            "100.64.0.7 (tag:exit) -> 100.64.0.3 (bob@example.org): refused",
            "no rule allows it",
            "note: they are peers only by grants[6] (line 13), which is for the other direction",
        ],
    );
}

#[test]
fn what_is_not_there_is_told() {
    check(
        "nobody@example.com",
        "99",
        None,
        None,
        &[
            "nobody@example.com -> node 99: refused",
            "no rule allows it",
            "note: nobody@example.com stands for no address",
            "note: node 99 stands for no address",
        ],
    );
    check(
        "4",
        "4",
        Some(9),
        None,
        &[
            "100.64.0.4 (tag:web) -> 100.64.0.4 (tag:web):9: refused",
            "no rule allows it",
            "near miss: acls[0] (line 19): it opens only 22, 8000-8100",
            "near miss: grants[0] (line 7): its sources do not hold 100.64.0.4 (tag:web)",
            "note: it is the same node, to which policy does not apply",
        ],
    );
}

#[test]
fn the_default_rule_is_named() {
    let question = Question { src: party("tag:web"), dst: party("*"), port: None, proto: None };
    assert_eq!(
        compiled(r#"{"tagOwners": {"tag:web": []}}"#, NODES).explain(&question).to_string(),
        "tag:web -> *: allowed\n  the default rule (there are neither acls nor grants): * -> *, ports *",
    );
}

#[test]
fn long_lists_are_cut() {
    let rule = |src: &str| format!(r#"{{"action": "accept", "src": ["{src}"], "dst": ["*:1"]}}"#);
    let rules = [vec![rule("tag:web"); 22], vec![rule("tag:db"); 23]].concat().join(",");
    let tags = r#""tagOwners": {"tag:web": [], "tag:db": []}"#;
    let policy = format!(r#"{{{tags}, "acls": [{rules}]}}"#);
    let question = Question {
        src: Party::Selector(crate::Selector::Tagged),
        dst: party("*"),
        port: None,
        proto: None,
    };
    let explanation = compiled(&policy, NODES).explain(&question);
    assert_eq!((explanation.allowed_by.len(), explanation.more_allow), (20, 25));
    assert!(explanation.to_string().ends_with("\n  and 25 more"), "{explanation}");
    let question = Question { src: party("tag:router"), ..question };
    let explanation = compiled(&policy, NODES).explain(&question);
    assert_eq!((explanation.near_misses.len(), explanation.more_misses), (20, 25));
    let text = explanation.to_string();
    assert!(text.ends_with("and 25 more near misses"), "{text}");
}

#[test]
fn parties_are_selectors_that_are_defined() {
    let refusal = |text: &str| Party::parse(&parsed(POLICY), text).expect_err("no party");
    assert_eq!(refusal("tag:none"), r#""tag:none" is not defined in the policy"#);
    assert_eq!(refusal("autogroup:self"), r#""autogroup:self" cannot be asked about"#);
    assert_eq!(refusal(""), r#""" is missing"#);
}

#[test]
fn an_explanation_is_an_object_for_programs() {
    let question =
        Question { src: party("group:dev"), dst: party("tag:db"), port: Some(5432), proto: None };
    let explanation = compiled(POLICY, NODES).explain(&question);
    insta::assert_snapshot!(serde_json::to_string_pretty(&explanation).expect("an explanation"));
}
