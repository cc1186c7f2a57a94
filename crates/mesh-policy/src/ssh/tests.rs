//! Tests of SSH access: policy and tailnet in, rules of one node out.

use std::fmt::Write as _;
use std::sync::Arc;

use mesh_model::NodeId;

use crate::compiled::CompiledPolicy;
use crate::delta::PolicyDelta;
use crate::facts::NodeOwner;
use crate::fixture::{compiled, node, user};

const NODES: &str = "
    alice@example.com
    alice@example.com
    bob@example.org
    tag:web
    tag:web tag:db
    owner@example.com
";

fn policy(ssh: &str) -> String {
    let tags = r#""tagOwners": {"tag:web": [], "tag:db": []}"#;
    format!(r#"{{{tags}, "groups": {{"group:none": []}}, "ssh": [{ssh}]}}"#)
}

/// One rule a line: last numbers of the IPv4 principals, login names, `check` with its seconds, environment, recorders.
fn rules(compiled: &CompiledPolicy, id: u32) -> String {
    let mut text = String::new();
    for rule in compiled.ssh_access(NodeId(id)) {
        let v4 = rule.principals.iter().filter(|address| address.is_ipv4());
        let last = v4.map(|address| address.to_string().replace("100.64.0.", ""));
        let names = rule.ssh_users.iter().map(|(name, login)| format!("{name}={login}"));
        let (principals, names) = (last.collect::<Vec<_>>(), names.collect::<Vec<_>>());
        write!(text, "{} as {}", principals.join(","), names.join(" ")).unwrap();
        if let Some(period) = rule.check_period {
            write!(text, " check {}", period.as_secs()).unwrap();
        }
        for variable in &*rule.accept_env {
            write!(text, " env {variable}").unwrap();
        }
        if !rule.recorders.is_empty() {
            write!(text, " recorders {} {}", rule.recorders.len(), rule.enforce_recorder).unwrap();
        }
        text.push('\n');
    }
    text
}

#[track_caller]
fn check(ssh: &str, id: u32, expected: &[&str]) {
    let rules = rules(&compiled(&policy(ssh), NODES), id);
    assert_eq!(rules.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn principals_are_the_nodes_of_users_then_tagged_ones_once_a_tag() {
    let rule = r#"{"action": "accept", "src": ["tag:web", "bob@example.org", "alice@example.com"],
        "dst": ["tag:db"], "users": ["root", "ubuntu"], "acceptEnv": ["LC_*"]}"#;
    check(rule, 5, &["1,2,3,4,5,5 as root=root ubuntu=ubuntu env LC_*"]);
    check(rule, 4, &[]);
    check(rule, 1, &[]);
    check(rule, 99, &[]);
}

#[test]
fn root_is_refused_unless_named() {
    let rule = r#"{"action": "accept", "src": ["bob@example.org"], "dst": ["tag:web"],
        "users": ["autogroup:nonroot"]}"#;
    check(rule, 4, &["3 as *== root="]);
}

#[test]
fn a_rule_without_sources_says_nothing() {
    let rule =
        r#"{"action": "accept", "src": ["group:none"], "dst": ["tag:web"], "users": ["root"]}"#;
    check(rule, 4, &[]);
}

#[test]
fn checks_come_before_accepts() {
    let rule = |action: &str, user: &str| {
        format!(
            r#"{{{action}, "src": ["bob@example.org"], "dst": ["tag:web"], "users": ["{user}"]}}"#
        )
    };
    let accept = r#""action": "accept""#;
    let check_rule = r#""action": "check", "checkPeriod": "1h""#;
    let always = r#""action": "check", "checkPeriod": "always""#;
    let rules = [
        rule(accept, "a"),
        rule(check_rule, "b"),
        rule(accept, "c"),
        rule(always, "d"),
        rule(r#""action": "check""#, "e"),
    ];
    check(
        &rules.join(","),
        4,
        &[
            "3 as b=b root= check 3600",
            "3 as d=d root= check 0",
            "3 as e=e root= check 43200",
            "3 as a=a root=",
            "3 as c=c root=",
        ],
    );
}

#[test]
fn own_nodes_are_let_in_by_their_user_alone() {
    let rule = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"],
        "users": ["root"]}"#;
    check(rule, 1, &["1,2 as root=root"]);
    check(rule, 3, &["3 as root=root"]);
    check(rule, 4, &[]);
    let others = r#"{"action": "accept", "src": ["bob@example.org"], "dst": ["autogroup:self"],
        "users": ["root"]}"#;
    check(others, 1, &[]);
}

const LOCAL_PART: &str = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:db"],
    "users": ["localpart:*@example.com", "ubuntu"]}"#;

#[test]
fn a_local_part_takes_a_rule_for_each_user() {
    check(
        LOCAL_PART,
        5,
        &[
            "6 as root= ubuntu=ubuntu",
            "6 as owner=owner",
            "1,2 as root= ubuntu=ubuntu",
            "1,2 as alice=alice",
            "3 as root= ubuntu=ubuntu",
        ],
    );
}

#[test]
fn sources_of_a_local_part_get_rules_for_themselves() {
    check(LOCAL_PART, 1, &["1,2 as root= ubuntu=ubuntu", "1,2 as alice=alice"]);
    check(LOCAL_PART, 3, &["3 as root= ubuntu=ubuntu"]);
    check(LOCAL_PART, 4, &[]);
    let tagged = r#"{"action": "accept", "src": ["tag:web"], "dst": ["tag:db"],
        "users": ["localpart:*@example.com"]}"#;
    check(tagged, 4, &["4 as root="]);
    check(tagged, 5, &["4,5,5 as root="]);
    let own = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"],
        "users": ["localpart:*@example.com"]}"#;
    check(own, 1, &["1,2 as root=", "1,2 as alice=alice"]);
}

#[test]
fn recorders_are_carried_along() {
    let rule = r#"{"action": "accept", "src": ["bob@example.org"], "dst": ["tag:web"],
        "users": ["root"], "recorder": ["tag:db"], "enforceRecorder": true}"#;
    check(rule, 4, &["3 as root=root recorders 2 true"]);
}

#[test]
fn principals_follow_the_nodes() {
    let rule = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"],
        "users": ["localpart:*@example.com"]}"#;
    let mut compiled = compiled(&policy(rule), "alice@example.com\ntag:web");
    let mut delta = PolicyDelta::default();
    assert_eq!(rules(&compiled, 2), "1 as root=\n1 as alice=alice\n");

    compiled.put_node(node(3, "alice@example.com"), &mut delta);
    assert_eq!(rules(&compiled, 2), "1,3 as root=\n1,3 as alice=alice\n");

    // The same selectors select it, but it belongs to somebody else.
    let mut given = node(3, "alice@example.com");
    given.owner = NodeOwner::User(user("bob@example.org"));
    compiled.put_node(given, &mut delta);
    assert_eq!(rules(&compiled, 2), "1 as root=\n1 as alice=alice\n3 as root=\n");

    let mut moved = node(3, "bob@example.org");
    moved.ipv4 = Some([100, 64, 0, 33].into());
    compiled.put_node(moved, &mut delta);
    assert_eq!(rules(&compiled, 2), "1 as root=\n1 as alice=alice\n33 as root=\n");

    compiled.remove_node(NodeId(1), &mut delta);
    assert_eq!(rules(&compiled, 2), "33 as root=\n");

    let mut renamed = compiled.user(user("bob@example.org")).unwrap().clone();
    renamed.email = "robert@example.com".into();
    compiled.put_user(renamed, &mut delta);
    assert_eq!(rules(&compiled, 2), "33 as root=\n33 as robert=robert\n");
}

#[test]
fn principals_are_worked_out_once() {
    let rule = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:tagged"],
        "users": ["root"]}"#;
    let compiled = compiled(&policy(rule), NODES);
    let (one, other) = (compiled.ssh_access(NodeId(4)), compiled.ssh_access(NodeId(5)));
    assert!(Arc::ptr_eq(&one[0].principals, &other[0].principals));
}
