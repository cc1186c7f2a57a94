//! Tests of the tests that policies bring along: policy and tailnet in, report out.

use crate::fixture::compiled;

const NODES: &str = "
    alice@example.com os linux
    alice@example.com os macOS
    bob@example.org
    tag:web
    tag:db route 10.0.0.0/8
    owner@example.com
";

fn report(sections: &str) -> String {
    let policy = format!(
        r#"{{
        "tagOwners": {{"tag:web": [], "tag:db": []}},
        "groups": {{"group:dev": ["alice@example.com", "bob@example.org"], "group:none": []}},
        "hosts": {{"web": "100.64.0.4", "net": "10.0.0.0/8"}},
        "ipsets": {{"ipset:two": ["100.64.0.4", "100.64.0.5"]}},
        "postures": {{"posture:mac": ["node:os == 'macos'"]}},
        {sections}
    }}"#
    );
    let compiled = compiled(&policy, NODES);
    let report = compiled.run_tests();
    assert_eq!(report.to_string().contains("test(s) failed"), !report.passed());
    format!("{report:#}")
}

#[track_caller]
fn check(rules: &str, test: &str, expected: &[&str]) {
    let report = report(&format!("{rules},\n\"tests\": [{test}]"));
    let lines: Vec<&str> = report.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, expected);
}

const ALICE_TO_DB: &str =
    r#""acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:db:5432"]}]"#;

#[test]
fn a_policy_without_tests_passes() {
    assert_eq!(report(ALICE_TO_DB), "the policy has no tests");
}

#[test]
fn an_expectation_is_met_or_told_with_the_rule_that_spoils_it() {
    check(
        ALICE_TO_DB,
        r#"{"src": "alice@example.com", "accept": ["tag:db:5432", "tag:db:22"], "deny": ["tag:web:80", "100.64.0.5:5432"]}"#,
        &[
            "tests[0] (line 8): alice@example.com -> tag:db:5432 should be accepted, and acls[0] (line 7) allows it",
            "tests[0] (line 8): alice@example.com -> tag:db:22 should be accepted, but no rule allows it",
            "tests[0] (line 8): alice@example.com -> tag:web:80 should be denied, and no rule allows it",
            "tests[0] (line 8): alice@example.com -> 100.64.0.5:5432 should be denied, but acls[0] (line 7) allows it",
        ],
    );
}

#[test]
fn the_head_counts_tests() {
    let tests = r#""tests": [
        {"src": "alice@example.com", "accept": ["tag:db:5432"]},
        {"src": "bob@example.org", "accept": ["tag:db:5432"]}
    ]"#;
    let report = report(&format!("{ALICE_TO_DB}, {tests}"));
    assert_eq!(report.lines().next(), Some("1 of 2 test(s) failed"));
}

#[test]
fn every_address_of_a_source_must_be_let_in_or_none() {
    check(
        ALICE_TO_DB,
        r#"{"src": "group:dev", "accept": ["tag:db:5432"], "deny": ["tag:db:5432"]}"#,
        &[
            "tests[0] (line 8): group:dev -> tag:db:5432 should be accepted, but acls[0] (line 7) allows it for 4 of 6 addresses only",
            "tests[0] (line 8): group:dev -> tag:db:5432 should be denied, but acls[0] (line 7) allows it for 4 of 6 addresses only",
        ],
    );
}

#[test]
fn several_rules_may_let_a_source_in_together() {
    let rules = r#""grants": [{"src": ["alice@example.com"], "dst": ["tag:db"], "ip": ["5432"]}],
        "acls": [{"action": "accept", "src": ["bob@example.org"], "dst": ["*:*"]}]"#;
    check(
        rules,
        r#"{"src": "group:dev", "accept": ["[fd7a:115c:a1e0::5]:5432"]}"#,
        &[
            "tests[0] (line 9): group:dev -> [fd7a:115c:a1e0::5]:5432 should be accepted, and grants[0] (line 7) and 1 more allow it",
        ],
    );
}

#[test]
fn the_default_rule_counts_too() {
    check(
        r#""ssh": []"#,
        r#"{"src": "10.1.2.3", "accept": ["tag:db:1"]}, {"src": "192.168.0.1", "deny": ["tag:db:1"]}"#,
        &[
            "tests[0] (line 8): 10.1.2.3 -> tag:db:1 should be accepted, and the default rule (there are neither acls nor grants) allows it",
            "tests[1] (line 8): 192.168.0.1 -> tag:db:1 should be denied, and no rule allows it",
        ],
    );
}

#[test]
fn a_protocol_must_be_one_that_the_rule_opens() {
    let rules =
        r#""grants": [{"src": ["*"], "dst": ["tag:db"], "ip": ["udp:53", "sctp:9", "icmp:*"]}]"#;
    let happened = |test: &str, expected: &str| {
        let report = report(&format!("{rules}, \"tests\": [{test}]"));
        let (_, happened) = report.split_once("be accepted, ").expect("a check");
        assert_eq!(happened, expected);
    };
    let by = "and grants[0] (line 7) allows it";
    happened(r#"{"src": "tag:web", "proto": "udp", "accept": ["tag:db:53"]}"#, by);
    happened(r#"{"src": "tag:web", "proto": "132", "accept": ["tag:db:9"]}"#, by);
    happened(
        r#"{"src": "tag:web", "proto": "TCP", "accept": ["tag:db:53"]}"#,
        "but no rule allows it",
    );
    happened(r#"{"src": "tag:web", "accept": ["tag:db:9"]}"#, by);
}

#[test]
fn self_via_and_other_rules_beside_the_tailnet_do_not_count() {
    let rules = r#""grants": [
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
        {"src": ["autogroup:member"], "dst": ["10.0.0.0/8"], "ip": ["*"], "via": ["tag:db"]}
    ]"#;
    check(
        rules,
        r#"{"src": "alice@example.com", "deny": ["100.64.0.1:22", "10.1.1.1:22"]}"#,
        &[
            "tests[0] (line 11): alice@example.com -> 100.64.0.1:22 should be denied, and no rule allows it",
            "tests[0] (line 11): alice@example.com -> 10.1.1.1:22 should be denied, and no rule allows it",
        ],
    );
}

#[test]
fn postures_narrow_the_source() {
    let rules = r#""acls": [{"action": "accept", "src": ["*"], "dst": ["tag:db:22"], "srcPosture": ["posture:mac"]}]"#;
    check(
        rules,
        r#"{"src": "alice@example.com", "accept": ["tag:db:22"]}, {"src": "100.64.0.2", "accept": ["tag:db:22"]}"#,
        &[
            "tests[0] (line 8): alice@example.com -> tag:db:22 should be accepted, but acls[0] (line 7) allows it for 2 of 4 addresses only",
            "tests[1] (line 8): 100.64.0.2 -> tag:db:22 should be accepted, and acls[0] (line 7) allows it",
        ],
    );
}

#[test]
fn what_cannot_be_tested_fails() {
    let check = |test: &str, expected: &str| {
        let report = report(&format!("{ALICE_TO_DB}, \"tests\": [{test}]"));
        let line = report.lines().nth(1).expect("a check");
        let (_, line) = line.split_once(": ").expect("a place");
        assert_eq!(line, expected, "{test}");
    };
    let dst = |text: &str, why: &str| {
        check(
            &format!(r#"{{"src": "tag:web", "accept": ["{text}"]}}"#),
            &format!("the destination {text:?} should be testable, but {why}"),
        );
    };
    dst("tag:db", r#""db" is not a single port"#);
    dst("web", "hostport must contain a colon");
    dst("web:0", r#""0" is not a single port"#);
    dst("web:80-90", r#""80-90" is not a single port"#);
    dst("100.64.0.4/32:80", "a test needs a single address, not a CIDR");
    dst("net:80", "net stands for more than one address");
    dst("ipset:two:80", "ipset:two stands for more than one address");
    dst("autogroup:internet:80", "autogroup:internet cannot be tested");
    dst("tag:none:80", r#""tag:none" is not defined in the policy"#);
    dst("group:none:80", "group:none has no addresses");
    dst(
        "autogroup:x:80",
        r#""autogroup:x" is not understood: invalid autogroup: got "autogroup:x", must be one of [autogroup:internet autogroup:member autogroup:tagged autogroup:self autogroup:danger-all autogroup:admin autogroup:owner]"#,
    );
    let src = |text: &str, why: &str| {
        check(
            &format!(r#"{{"src": "{text}", "accept": ["web:80"]}}"#),
            &format!("the source {text:?} should be testable, but it {why}"),
        );
    };
    src("", "is missing");
    src("nobody@example.com", "has no addresses");
    src("ipset:none", "is not defined in the policy");
    src("nohost", "is not defined in the policy");
    src("group:other", "is not defined in the policy");
    src("autogroup:self", "cannot be a source");
    check(
        r#"{"src": "tag:web"}"#,
        "the test should be testable, but it neither accepts nor denies anything",
    );
    check(
        r#"{"src": "tag:web", "proto": "icmp", "accept": ["web:80"]}"#,
        "the protocol \"icmp\" should be testable, but only tcp, udp and sctp can be tested",
    );
}

#[track_caller]
fn check_ssh(test: &str, expected: &[&str]) {
    let rules = r#""ssh": [
        {"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["ubuntu", "autogroup:nonroot"]},
        {"action": "check", "src": ["alice@example.com"], "dst": ["tag:db"], "users": ["root"]},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}
    ]"#;
    let report = report(&format!("{rules}, \"sshTests\": [{test}]"));
    let lines: Vec<&str> = report
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once("): "))
        .map(|(_, line)| line)
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn logins_are_let_in_checked_or_refused() {
    check_ssh(
        r#"{"src": "alice@example.com", "dst": ["tag:web"], "accept": ["ubuntu", "bob"], "deny": ["root"], "check": ["bob"]}"#,
        &[
            "alice@example.com -> tag:web as ubuntu should be let in, and it is",
            "alice@example.com -> tag:web as bob should be let in, and it is",
            "alice@example.com -> tag:web as root should be refused, and it is",
            "alice@example.com -> tag:web as bob should be let in after a check, but 100.64.0.4 (tag:web) lets it in",
        ],
    );
    check_ssh(
        r#"{"src": "alice@example.com", "dst": ["tag:db"], "accept": ["root"], "deny": ["root"], "check": ["root", ""]}"#,
        &[
            "alice@example.com -> tag:db as root should be let in, and it is",
            "alice@example.com -> tag:db as root should be refused, but 100.64.0.5 (tag:db) lets it in after a check",
            "alice@example.com -> tag:db as root should be let in after a check, and it is",
            r#"alice@example.com -> tag:db as "" should be let in after a check, but 100.64.0.5 (tag:db) refuses it"#,
        ],
    );
}

#[test]
fn every_address_of_a_login_source_counts() {
    check_ssh(
        r#"{"src": "group:dev", "dst": ["web"], "accept": ["ubuntu"], "deny": ["ubuntu"]}"#,
        &[
            "group:dev -> web as ubuntu should be let in, but 100.64.0.4 (tag:web) lets only some of its addresses in",
            "group:dev -> web as ubuntu should be refused, but 100.64.0.4 (tag:web) lets only some of its addresses in",
        ],
    );
}

#[test]
fn own_nodes_are_a_destination_for_a_user() {
    check_ssh(
        r#"{"src": "alice@example.com", "dst": ["autogroup:self"], "accept": ["root"]},
           {"src": "tag:web", "dst": ["autogroup:self"], "accept": ["root"]}"#,
        &[
            "alice@example.com -> autogroup:self as root should be let in, and it is",
            r#"the destination "autogroup:self" should be testable, but only a user has nodes of its own"#,
        ],
    );
}

#[test]
fn login_tests_that_ask_nothing_fail() {
    check_ssh(
        r#"{"src": "alice@example.com", "dst": ["tag:web"]}, {"src": "nobody@example.com", "dst": [], "deny": ["root"]}"#,
        &[
            "the test should be testable, but it neither accepts, denies nor checks anything",
            "the test should be testable, but it has no destination",
            r#"the source "nobody@example.com" should be testable, but it has no addresses"#,
        ],
    );
    check_ssh(
        r#"{"src": "alice@example.com", "dst": ["nobody@example.com", "ipset:two"], "deny": ["root"]}"#,
        &[
            r#"the destination "nobody@example.com" should be testable, but no node is selected by it"#,
            r#"the destination "ipset:two" should be testable, but it stands for more than one address"#,
        ],
    );
}

#[test]
fn a_report_is_an_object_for_programs() {
    let report =
        compiled(r#"{"tests": [{"src": "*", "accept": ["100.64.0.1:1"]}]}"#, NODES).run_tests();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).expect("a report"));
}
