//! Tests of approvals.

use ipnet::IpNet;
use mesh_model::UserId;

use crate::fixture::{compiled, node, user};

const APPROVERS: &str = r#"{
    "groups": {"group:net": ["alice@example.com"]},
    "tagOwners": {"tag:router": [], "tag:exit": []},
    "autoApprovers": {
        "routes": {
            "10.0.0.0/8": ["tag:router"],
            "10.33.0.0/16": ["group:net"],
            "0.0.0.0/0": ["tag:exit"],
            "fd00::/8": ["bob@example.org"]
        },
        "exitNode": ["tag:exit"]
    }
}"#;

#[track_caller]
fn check_routes(line: &str, offered: &[&str], expected: &[&str]) {
    let prefixes =
        |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let compiled = compiled(APPROVERS, "");
    let approved = compiled.auto_approved(&node(9, line), &prefixes(offered));
    assert_eq!(approved, prefixes(expected), "{line}");
}

#[test]
fn a_route_within_a_key_of_an_approver_is_approved() {
    check_routes("tag:router", &["10.33.0.0/16", "10.0.0.0/8"], &["10.0.0.0/8", "10.33.0.0/16"]);
    check_routes("tag:router", &["10.33.1.2/16", "10.33.0.0/16"], &["10.33.0.0/16"]);
    check_routes(
        "alice@example.com",
        &["10.33.0.0/16", "10.33.4.0/24"],
        &["10.33.0.0/16", "10.33.4.0/24"],
    );
    check_routes("bob@example.org", &["fd00:1::/64", "10.33.0.0/16"], &["fd00:1::/64"]);
}

#[test]
fn a_route_wider_than_the_key_is_not() {
    check_routes("alice@example.com", &["10.0.0.0/8", "10.32.0.0/15"], &[]);
    check_routes("tag:router", &["0.0.0.0/1", "192.168.0.0/16"], &[]);
}

#[test]
fn exit_routes_are_approved_by_exit_node_alone() {
    check_routes("tag:exit", &["0.0.0.0/0", "::/0"], &["0.0.0.0/0", "::/0"]);
    check_routes("tag:exit", &["192.168.0.0/16"], &["192.168.0.0/16"]);
    check_routes("tag:router", &["0.0.0.0/0", "::/0"], &[]);
}

#[test]
fn nothing_is_approved_without_approvers_or_routes() {
    check_routes("tag:exit", &[], &[]);
    let none = compiled("", "");
    assert_eq!(none.auto_approved(&node(9, "tag:exit"), &["10.0.0.0/8".parse().unwrap()]), []);
}

const OWNERS: &str = r#"{
    "groups": {"group:dba": ["alice@example.com"]},
    "tagOwners": {
        "tag:mine": ["bob@example.org"],
        "tag:db": ["group:dba"],
        "tag:replica": ["tag:db"],
        "tag:archive": ["tag:replica"],
        "tag:ring": ["tag:gnir"],
        "tag:gnir": ["tag:ring"],
        "tag:nobody": [],
        "tag:admins": ["autogroup:admin"],
        "tag:owners": ["autogroup:owner"]
    }
}"#;

#[track_caller]
fn check_tag(login: &str, carried: Option<&str>, tag: &str, expected: &str) {
    let carried = carried.map(|line| node(9, line));
    let answer = compiled(OWNERS, "").permits_tag(user(login), carried.as_ref(), tag);
    let answer = answer.map_or_else(|refusal| refusal.to_string(), |()| "yes".to_owned());
    assert_eq!(answer, expected, "{login} {tag}");
}

#[test]
fn owners_give_tags_themselves_by_group_or_by_role() {
    check_tag("bob@example.org", None, "tag:mine", "yes");
    check_tag("alice@example.com", None, "tag:db", "yes");
    check_tag("admin@example.com", None, "tag:admins", "yes");
    check_tag("owner@example.com", None, "tag:admins", "yes");
    check_tag("owner@example.com", None, "tag:owners", "yes");
}

#[test]
fn others_are_told_why_not() {
    check_tag("bob@example.org", None, "tag:db", "bob@example.org is not an owner of tag:db");
    check_tag(
        "admin@example.com",
        None,
        "tag:owners",
        "admin@example.com is not an owner of tag:owners",
    );
    check_tag(
        "bob@example.org",
        None,
        "tag:nobody",
        "bob@example.org is not an owner of tag:nobody",
    );
    check_tag("bob@example.org", None, "tag:x", "tag:x is not defined in tagOwners");
    let stranger = compiled(OWNERS, "").permits_tag(UserId(99), None, "tag:mine");
    assert_eq!(stranger.unwrap_err().to_string(), "nobody is not an owner of tag:mine");
}

#[test]
fn a_tag_that_a_node_carries_gives_the_tags_it_owns() {
    check_tag("bob@example.org", Some("tag:db"), "tag:replica", "yes");
    check_tag("bob@example.org", Some("tag:db"), "tag:archive", "yes");
    check_tag("bob@example.org", Some("tag:db"), "tag:db", "yes");
    let refusal = "bob@example.org is not an owner of tag:db";
    check_tag("bob@example.org", Some("tag:replica"), "tag:db", refusal);
    // The owner of the owning tag does not own the tag.
    let refusal = "alice@example.com is not an owner of tag:replica";
    check_tag("alice@example.com", None, "tag:replica", refusal);
}

#[test]
fn cycles_of_owners_end() {
    check_tag("bob@example.org", None, "tag:ring", "bob@example.org is not an owner of tag:ring");
    check_tag("bob@example.org", Some("tag:gnir"), "tag:ring", "yes");
}

#[test]
fn defined_tags_are_keys_of_tag_owners() {
    let compiled = compiled(OWNERS, "");
    assert!(compiled.is_tag_defined("tag:nobody"));
    assert!(!compiled.is_tag_defined("tag:x"));
}
