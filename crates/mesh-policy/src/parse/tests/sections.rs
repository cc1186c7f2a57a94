//! Everything but the ends of rules.

use std::time::Duration;

use super::super::duration::parse_duration;
use super::{accepted, check, check_acl, check_ssh, names, repeated};
use crate::policy::{Comparison, OneCgnatRoute, Policy, SshAction, SshUser};

/// As [`check`], for a policy of its own.
#[track_caller]
fn check_alone(text: &str, expected: &str) {
    let problems = Policy::parse(text, None).expect_err(text).to_string();
    assert!(problems.lines().any(|line| line.ends_with(expected)), "{text}\n{problems}");
}

#[test]
fn groups_hold_users() {
    check_alone(
        r#"{"groups": {"admins": []}}"#,
        r#"group must start with 'group:', got: "admins""#,
    );
    check_alone(
        r#"{"groups": {"group:a": ["bob"]}}"#,
        r#"groups["group:a"][0]: username must contain @, got: "bob""#,
    );
    check_alone(
        r#"{"groups": {"group:a": ["group:b"]}}"#,
        r#"groups["group:a"]: "group:b": group members cannot be recursive"#,
    );
    check_alone(
        r#"{"groups": {"group:a": "x@"}}"#,
        "group value must be an array of users: it is a text",
    );
    check_alone(
        r#"{"groups": {"group:a": [], "group:a": []}}"#,
        r#"duplicate member: "group:a" stands here already"#,
    );
}

#[test]
fn hosts_are_addresses() {
    check_alone(
        r#"{"hosts": {"a": "10.0.0.300"}}"#,
        r#"hostname contains invalid IP address: hostname "a" address "10.0.0.300""#,
    );
    check_alone(
        r#"{"hosts": {"a:b": "::1"}}"#,
        r#"hostname must not contain @ or ':', got: "a:b""#,
    );
    check_alone(
        r#"{"hosts": {"a": "::1", "a": "::2"}}"#,
        r#"duplicate member: "a" stands here already"#,
    );
    check_alone(
        r#"{"hosts": {"a": ["::1"]}}"#,
        r#"hosts["a"]: this has to be a text, and it is a list"#,
    );
}

#[test]
fn tags_have_owners() {
    let policy = accepted("");
    assert_eq!(names(&policy, &policy.tag_owners["tag:db"]), [r#"Tag("tag:web")"#, "Admin"]);
    check_alone(
        r#"{"tagOwners": {"tag:сервер": []}}"#,
        r#"tagOwners["tag:сервер"]: tag names must start with a letter, after 'tag:'"#,
    );
    check_alone(r#"{"tagOwners": {"web": []}}"#, r#"tag must start with 'tag:', got: "web""#);
    check_alone(
        r#"{"tagOwners": {"tag:a": [], "tag:a": []}}"#,
        r#"duplicate member: "tag:a" stands here already"#,
    );
    check_alone(
        r#"{"tagOwners": {"tag:a": ["tag:b"]}}"#,
        r#"tag "tag:a" references undefined tag "tag:b" (did you mean "tag:a"?)"#,
    );
    check_alone(r#"{"tagOwners": {"tag:a": ["*"]}}"#, r#"invalid owner format: "*""#);
}

#[test]
fn ipsets_are_worked_out_in_order() {
    let policy = Policy::parse(
        r#"{"hosts": {"net": "10.9.0.0/16"}, "ipsets": {
            "ipset:a": ["ipset:b", "add 10.0.0.5", "remove net"],
            "ipset:b": ["add 10.0.0.0/8", "remove 10.0.0.0/9", "10.9.0.0/16", "10.10.0.1"],
            "ipset:\u0063": ["add autogroup:internet", "\u0072emove 0.0.0.0/0"]}}"#,
        None,
    )
    .expect("a policy");
    let texts = |name: &str| {
        policy.ipsets[name].ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(texts("ipset:a"), "10.0.0.5 10.10.0.1 10.128.0.0/9");
    assert_eq!(texts("ipset:c"), "2000::/3");
}

#[test]
fn ipsets_that_make_no_sense_are_refused() {
    check_alone(
        r#"{"ipsets": {"ipset:a": ["ipset:a"]}}"#,
        r#"ipsets["ipset:a"][0]: "ipset:a" contains itself"#,
    );
    check_alone(
        r#"{"ipsets": {"ipset:a": ["ipset:b"], "ipset:b": ["ipset:a"]}}"#,
        r#""ipset:a" contains itself"#,
    );
    check_alone(
        r#"{"ipsets": {"ipset:a": ["ipset:other"]}}"#,
        r#"ipset not defined in policy: "ipset:other""#,
    );
    check_alone(r#"{"ipsets": {"ipset:a": ["web"]}}"#, r#"host not defined in policy: "web""#);
    check_alone(r#"{"ipsets": {"a": []}}"#, r#"ipset must start with 'ipset:', got: "a""#);
    check_alone(
        r#"{"ipsets": {"ipset:a": [], "ipset:a": []}}"#,
        r#"duplicate member: "ipset:a" stands here already"#,
    );
    let each = |index| format!("\"10.{}.{}.1\",", index / 256, index % 256);
    let large = repeated("", each, 2000, "");
    let text = format!(
        r#"{{"ipsets": {{"ipset:a": [{large}], "ipset:b": [{}]}}}}"#,
        "\"ipset:a\",".repeat(24)
    );
    check_alone(
        &text,
        r#"ipsets["ipset:b"][23]: the sets are put together from more than 50000 ranges"#,
    );
    let text = format!(r#"{{"ipsets": {{"ipset:a": [{}]}}}}"#, "\"::\",".repeat(50_001));
    check_alone(
        &text,
        r#"ipsets["ipset:a"][50000]: the sets are put together from more than 50000 ranges"#,
    );
    let sets = repeated("", |index| format!("\"ipset:{index}\": [],"), 10_001, "");
    check_alone(&format!(r#"{{"ipsets": {{{sets}}}}}"#), "there are more than 10000 ipsets");
}

#[test]
fn postures_are_conditions() {
    let policy = Policy::parse(
        r#"{"postures": {"posture:a": ["node:os == 'macos'", "node:tsVersion>=\"1.40\"", "custom:a != 1.5", "a:b<2", "a:b <= 3",
            "a:b > true", "a:b IN ['x', 2]", "a:b not in ['x' ]", "a:b IS SET", "a:b NOT SET"]}}"#,
        None,
    )
    .expect("a policy");
    let conditions = &policy.postures["posture:a"];
    assert_eq!(conditions.len(), 10);
    assert_eq!(&*conditions[1].attribute, "node:tsVersion");
    assert_eq!(conditions[1].comparison, Comparison::GreaterOrEqual("1.40".into()));
    assert_eq!(conditions[7].comparison, Comparison::NotIn(vec!["x".into()]));
    let operators =
        "after the attribute comes one of ==, !=, <, <=, >, >=, IN, NOT IN, IS SET, NOT SET";
    for (condition, error) in [
        ("os == 'a'", "it begins with an attribute such as node:os"),
        ("a:b = 'a'", operators),
        ("a:b IS SET x", operators),
        ("a:b == a", "a value is expected: a text in single quotes, a number, true or false"),
        ("a:b == 'a", "the value's closing quote is missing"),
        ("a:b == 'a' b", "it ends after its value"),
        ("a:b IN 'a'", "a list of values is expected: ['a', 'b']"),
        ("a:b IN ['a' 'b']", "a `,` or `]` is expected after a value of a list"),
        ("a:b IN ['a'] c", "it ends after its list"),
    ] {
        check_alone(
            &format!(r#"{{"postures": {{"posture:a": ["{condition}"]}}}}"#),
            &format!(r#"condition "{condition}": {error}"#),
        );
    }
    check_alone(r#"{"postures": {"posture:a": []}}"#, "a posture needs at least one condition");
    check_alone(
        r#"{"postures": {"a": ["a:b IS SET"]}}"#,
        r#"posture must start with 'posture:', got: "a""#,
    );
    check_alone(
        r#"{"postures": {"posture:a": [], "posture:a": []}}"#,
        r#"duplicate member: "posture:a" stands here already"#,
    );
}

#[test]
fn the_default_posture_holds_for_every_rule_without_its_own() {
    let policy = Policy::parse(
        r#"{"postures": {"posture:a": ["a:b IS SET"], "posture:b": ["a:c IS SET"]}, "defaultSrcPosture": ["posture:a"],
            "acls": [{"action": "accept"}, {"action": "accept", "srcPosture": []}, {"action": "accept", "srcPosture": ["posture:b"]}],
            "grants": [{"ip": ["*"]}]}"#,
        None,
    )
    .expect("a policy");
    let postures: Vec<&str> =
        policy.acls.iter().flatten().map(|acl| &*acl.src_posture[0]).collect();
    assert_eq!(postures, ["posture:a", "posture:a", "posture:b"]);
    assert_eq!(policy.grants.expect("grants")[0].src_posture.len(), 1);
    let text = r#"{"postures": {"posture:a": ["a:b IS SET"]}, "defaultSrcPosture": ["posture:a"]}"#;
    let policy = Policy::parse(text, None).expect("a policy");
    assert_eq!(policy.acls.expect("the implicit rule")[0].src_posture.len(), 1);
    check_acl(
        r#""srcPosture": ["posture:mc"]"#,
        ".srcPosture[0]",
        r#"posture not defined in policy: "posture:mc" (did you mean "posture:mac"?)"#,
    );
    let many = "\"posture:mac\",".repeat(12);
    check_acl(
        &format!(r#""srcPosture": [{many}]"#),
        ".srcPosture[10]",
        "a rule names at most 10 postures",
    );
}

#[test]
fn acls_accept() {
    check(r#""acls": [{}]"#, "acls[0]", r#"action="" is not supported: it has to be "accept""#);
    check(r#""acls": [{"action": "deny"}]"#, "acls[0].action", r#"action="deny" is not supported"#);
    let policy = accepted(r#""acls": [{"action": "accept", "users": ["*"], "ports": ["*:22"]}]"#);
    let acl = &policy.acls.expect("acls")[0];
    assert_eq!((acl.src.len(), acl.dst.len()), (1, 1));
    let both = "`users` and `ports` are old names of `src` and `dst`: write only one of the two";
    check_acl(r#""src": ["*"], "users": ["*"]"#, ".users", both);
}

#[test]
fn ssh_says_how_and_as_whom() {
    let policy = accepted(
        r#""ssh": [{"action": " check ", "users": [" root", "autogroup:nonroot", "localpart:*@example.com", "localpart:*@", "tag:x"]},
            {"action": "check", "users": ["a"], "checkPeriod": "always"}, {"action": "check", "users": ["a"], "checkPeriod": "168h"}]"#,
    );
    assert_eq!(policy.ssh[0].action, SshAction::Check { period: Duration::from_hours(12) });
    assert_eq!(policy.ssh[1].action, SshAction::Check { period: Duration::ZERO });
    let name = |name: &str| SshUser::Name(name.into());
    let local = SshUser::LocalPart("example.com".into());
    assert_eq!(
        policy.ssh[0].users,
        [SshUser::Root, SshUser::NonRoot, local, name("localpart:*@"), name("tag:x")]
    );
    check(r#""ssh": [{"users": ["a"]}]"#, "ssh[0]", "action must be specified");
    check(r#""ssh": [{"users": ["a"], "action": ""}]"#, "ssh[0]", "action must be specified");
    check(
        r#""ssh": [{"users": ["a"], "action": "Accept"}]"#,
        "ssh[0].action",
        r#""Accept" is not a valid action"#,
    );
    check(r#""ssh": [{"users": null, "action": "accept"}]"#, "ssh[0]", "users must be specified");
    check(
        r#""ssh": [{"users": ["*"], "action": "accept"}]"#,
        "ssh[0].users[0]",
        r#"user "*" is not valid"#,
    );
    check(
        r#""ssh": [{"users": ["localpart:*@EXAMPLE.COM"], "action": "accept"}]"#,
        "ssh[0].users[0]",
        "EXAMPLE.COM is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
    );
    check_ssh(r#""acceptEnv": [""]"#, ".acceptEnv[0]", "acceptEnv values cannot be empty");
    check_ssh(
        r#""recorder": ["a@b"]"#,
        ".recorder[0]",
        r#"recorder can only be a tag, got: "a@b""#,
    );
    check_ssh(
        r#""checkPeriod": "1h""#,
        ".checkPeriod",
        r#"checkPeriod is only valid with action "check""#,
    );
    for (period, message) in [
        ("-1m", "checkPeriod -1m0s must be a positive duration"),
        ("168h1s", "checkPeriod 168h0m1s is above the max (168h)"),
        ("abc", r#"time: invalid duration "abc""#),
        ("", r#"time: invalid duration """#),
        ("9999999999h", r#"time: invalid duration "9999999999h""#),
        ("10", r#"time: missing unit in duration "10""#),
        ("1d", r#"time: unknown unit "d" in duration "1d""#),
    ] {
        check(
            &format!(
                r#""ssh": [{{"action": "check", "users": ["a"], "checkPeriod": "{period}"}}]"#
            ),
            "ssh[0].checkPeriod",
            message,
        );
    }
}

#[test]
fn spans_are_read_and_written_as_go_does() {
    for (text, written) in [
        ("0", "0s"),
        ("1h", "1h0m0s"),
        ("90s", "1m30s"),
        ("1.5s", "1.5s"),
        ("-1h30m", "-1h30m0s"),
        ("+2ms", "2ms"),
        ("1us", "1µs"),
        ("1500µs", "1.5ms"),
        ("7ns", "7ns"),
        (".5m", "30s"),
        ("1h0.25s", "1h0m0.25s"),
    ] {
        assert_eq!(
            parse_duration(text).map(|span| span.to_string()).as_deref(),
            Ok(written),
            "{text}"
        );
    }
}

#[test]
fn node_attributes_have_targets() {
    let policy = accepted(
        r#""nodeAttrs": [{"target": ["*", "100.64.0.1", "autogroup:owner"], "attr": ["funnel"], "ipPool": ["100.81.0.0/16"], "app": {"tailscale.com/app-connectors": [{}]}}, {}]"#,
    );
    assert_eq!(policy.node_attrs[0].target.len(), 3);
    let target = |target: &str| format!(r#""nodeAttrs": [{{"target": ["{target}"]}}]"#);
    let path = "nodeAttrs[0].target[0]";
    check(&target("%bogus%"), path, r#""%bogus%": invalid address"#);
    check(&target("tag:nil"), path, r#"tag not found: "tag:nil""#);
    check(
        &target("autogroup:internet"),
        path,
        r#""autogroup:internet" cannot be a nodeAttrs target"#,
    );
    check(
        &target("autogroup:self"),
        path,
        "autogroup:self cannot be a nodeAttrs target (the service answers: internal server error)",
    );
    let pool = |pool: &str| format!(r#""nodeAttrs": [{{"ipPool": ["{pool}"]}}]"#);
    let path = "nodeAttrs[0].ipPool[0]";
    check(&pool("100.100.0.0/16"), path, "IPPool(100.100.0.0/16): network within reserved range");
    check(&pool("100.115.93.0/24"), path, "IPPool(100.115.93.0/24): network within reserved range");
    check(
        &pool("fd00::/64"),
        path,
        "IPPool(fd00::/64): it has to be an IPv4 network such as 100.81.0.0/16",
    );
}

#[test]
fn approvers_approve_routes() {
    let policy = accepted(
        r#""autoApprovers": {"routes": {"10.0.0.1/8": ["tag:web"], "::/0": null}, "exitnode": ["group:admins"]}"#,
    );
    assert_eq!(policy.auto_approvers.routes[0].0.to_string(), "10.0.0.0/8");
    assert_eq!(policy.auto_approvers.exit_node.len(), 1);
    let routes = |routes: &str| format!(r#""autoApprovers": {{"routes": {{{routes}}}}}"#);
    check(
        &routes(r#""10.0.0.1": []"#),
        r#"autoApprovers.routes["10.0.0.1"]"#,
        r#"a route is a CIDR, got: "10.0.0.1""#,
    );
    check(
        &routes(r#""::/0": [], "::/0": []"#),
        r#"autoApprovers.routes["::/0"]"#,
        r#"duplicate member: "::/0" stands here already"#,
    );
    check(
        &routes(r#""::/0": ["web"]"#),
        r#"autoApprovers.routes["::/0"][0]"#,
        r#"invalid auto approver format: "web""#,
    );
    check(
        &routes(r#""::/0": ["tag:nil"]"#),
        r#"autoApprovers.routes["::/0"][0]"#,
        r#"tag not found: "tag:nil""#,
    );
}

#[test]
fn tests_are_kept_as_written_and_ssh_tests_have_a_shape() {
    let policy = accepted(
        r#""tests": [{"src": "nobody", "proto": "x", "accept": ["a:1"], "deny": ["b"]}],
           "sshTests": [{"src": "a@b", "dst": ["tag:web", "web"], "accept": ["root"], "deny": [], "check": ["a"]}]"#,
    );
    assert_eq!((&*policy.tests[0].src, &*policy.tests[0].deny[0]), ("nobody", "b"));
    assert_eq!((policy.ssh_tests[0].dst.len(), policy.ssh_tests[0].check.len()), (2, 1));
    let dst = |dst: &str| format!(r#""sshTests": [{{"dst": ["{dst}"]}}]"#);
    let path = "sshTests[0].dst[0]";
    check(
        &dst("autogroup:internet"),
        path,
        r#"SSH tests dst contains disallowed element "autogroup:internet""#,
    );
    check(
        &dst("100.64.0.0/24"),
        path,
        r#"SSH tests dst contains disallowed element "100.64.0.0/24""#,
    );
    check(&dst("tag:nil:22"), path, r#"SSH tests dst contains unknown tag "tag:nil:22""#);
}

#[test]
fn the_network_flags_are_read() {
    let policy = accepted(
        r#""randomizeClientPort": true, "disableIPv4": true, "OneCGNATRoute": "mac-never""#,
    );
    assert!(policy.randomize_client_port && policy.disable_ipv4);
    assert_eq!(policy.one_cgnat_route, Some(OneCgnatRoute::MacNever));
    assert_eq!(accepted(r#""OneCGNATRoute": """#).one_cgnat_route, None);
    assert_eq!(
        accepted(r#""OneCGNATRoute": "mac-always""#).one_cgnat_route,
        Some(OneCgnatRoute::MacAlways)
    );
    check(
        r#""OneCGNATRoute": "x""#,
        "OneCGNATRoute",
        r#""x" is neither "mac-always" nor "mac-never""#,
    );
    check(
        r#""derpMap": {}"#,
        "derpMap",
        "relays are set up in the server's configuration, under `derp`, not in the policy",
    );
}

#[test]
fn limits_are_told() {
    let text = format!(r#"{{"nodeAttrs": [{}]}}"#, "{},".repeat(20_001));
    check_alone(&text, "nodeAttrs[20000]: a list of rules has at most 20000 entries");
    let each = format!("[{}]", "{},".repeat(20_000));
    let text = format!(
        r#"{{"nodeAttrs": {each}, "tests": {each}, "sshTests": [{}]}}"#,
        "{},".repeat(10_001)
    );
    check_alone(&text, "sshTests[10000]: the lists of rules together have at most 50000 entries");
    let app = repeated("", |index| format!("\"a{index}\": [],"), 10_001, "");
    let text = format!(r#"{{"nodeAttrs": [{{"app": {{{app}}}}}]}}"#);
    check_alone(&text, "an app has at most 10000 capabilities");
    let values = format!("a:b IN [1{}]", ",1".repeat(19_999));
    let text = format!(r#"{{"postures": {{"posture:a": ["a:b > 1", "{values}"]}}}}"#);
    check_alone(&text, "the postures together have more than 20000 conditions and values of lists");
    let text = format!(r#"{{"grants": [{{"ip": [{}]}}]}}"#, "\"*\",".repeat(150_002));
    check_alone(&text, "the rules together have more than 150000 destinations and entries of `ip`");
    let users = repeated("", |index| format!("\"{index}@\","), 65_537, "");
    let text = format!(r#"{{"grants": [{{"ip": ["*"], "src": [{users}]}}]}}"#);
    check_alone(&text, "the policy names more than 65536 selectors");
}
