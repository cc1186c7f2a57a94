//! Selectors, ports and protocols of rules: who and what, and where which may stand.

use super::{accepted, check_acl, check_grant, check_ssh, names};
use crate::policy::{PortRange, Selector};

#[test]
fn every_selector_has_its_meaning() {
    let policy = accepted(
        r#""grants": [{"ip": ["*"], "dst": [], "src": ["*", "alice@example.com", "user:*@example.com", "user:*@", "group:admins",
            "tag:web", "web", "ipset:lan", "10.0.0.1", "10.0.0.1/8", "fd00::/64", "autogroup:member", "autogroup:tagged",
            "autogroup:danger-all", "autogroup:admin", "autogroup:owner"]}]"#,
    );
    let grants = policy.grants.as_ref().expect("grants");
    insta::assert_snapshot!("selectors", names(&policy, &grants[0].src).join("\n"));
}

#[test]
fn sources_that_there_are_not_are_refused_in_the_words_of_the_service() {
    for (source, message) in [
        ("tag:wbe", r#"src=tag not found: "tag:wbe" (did you mean "tag:web"?)"#),
        (
            "group:admns",
            r#"group not defined in policy: "group:admns" (did you mean "group:admins"?)"#,
        ),
        ("wbe", r#"host not defined in policy: "wbe" (did you mean "web"?)"#),
        ("ipset:lna", r#"ipset not defined in policy: "ipset:lna" (did you mean "ipset:lan"?)"#),
        ("svc:a", r#""svc:a": services are not supported"#),
        ("a:b", r#"invalid alias format: "a:b""#),
        (
            "autogroup:nobody",
            r#"invalid autogroup: got "autogroup:nobody", must be one of [autogroup:internet autogroup:member autogroup:tagged autogroup:self autogroup:danger-all autogroup:admin autogroup:owner]"#,
        ),
        ("autogroup:self", r#""autogroup:self" not valid on the src side of a rule"#),
        ("autogroup:internet", "autogroup:internet can only be used in ACL destinations"),
    ] {
        check_acl(&format!(r#""src": ["{source}"]"#), ".src[0]", message);
        check_grant(&format!(r#""ip": ["*"], "src": ["{source}"]"#), ".src[0]", message);
    }
}

#[test]
fn destinations_that_there_are_not_are_refused() {
    for (destination, message) in [
        ("tag:nil:22", r#"dst="tag:nil": tag not found: "tag:nil""#),
        ("tag:web", r#"dst="tag:web": port range "web": invalid first integer"#),
        ("tag:web:ssh", r#"dst="tag:web:ssh": port range "ssh": invalid first integer"#),
        ("web:0", r#"dst="web:0": port range "0": first port must be >0, or use '*' for wildcard"#),
        ("web:+80", r#"dst="web:+80": port range "+80": invalid first integer"#),
        ("web:65536", r#"dst="web:65536": port range "65536": port number out of range"#),
        ("web:1-", r#"dst="web:1-": port range "1-": invalid port range format"#),
        (
            "web:2-1",
            r#"dst="web:2-1": port range "2-1": invalid port range: first port is greater than last port"#,
        ),
        ("web", r#"dst="web": hostport must contain a colon"#),
        (":80", r#"dst=":80": input cannot start with a colon character"#),
        ("web:", r#"dst="web:": input cannot end with a colon character"#),
        (
            "[web]:80",
            r#"dst="[web]:80": square brackets are only valid around IPv6 addresses: "[web]""#,
        ),
        (
            "[::1]x:80",
            r#"dst="[::1]x:80": square brackets are only valid around IPv6 addresses: "[::1]x""#,
        ),
        ("autogroup:danger-all:*", "cannot use autogroup:danger-all as a dst"),
        ("autogroup:admin:*", r#"autogroup not supported here: "autogroup:admin""#),
    ] {
        check_acl(&format!(r#""dst": ["{destination}"]"#), ".dst[0]", message);
    }
    check_grant(r#""ip": ["*"], "dst": ["tag:nil"]"#, ".dst[0]", r#"tag not found: "tag:nil""#);
    let all = r#"dst "::/0": to allow all IP addresses, use "*" or "autogroup:internet""#;
    check_grant(r#""ip": ["*"], "dst": ["::/0"]"#, ".dst[0]", all);
    accepted(
        r#""acls": [{"action": "accept", "dst": ["::/0:*", "fd00:1::/64:443", "[fd00::1]/128:80,443"]}]"#,
    );
}

#[test]
fn escaped_and_spaced_texts_mean_the_same() {
    let policy = accepted(
        r#""acls": [{"action": "accept", "src": ["tag:\u0077eb"], "dst": ["t\u0061g:web:80, 90-91", " tag:web:1 "]}]"#,
    );
    let acl = &policy.acls.as_ref().expect("acls")[0];
    assert!(acl.dst.iter().all(|destination| destination.selector == acl.src[0]));
    let ranges = |first, last| PortRange { first, last };
    assert_eq!(*acl.dst[0].ports, [ranges(80, 80), ranges(90, 91)]);
}

#[test]
fn protocols_are_names_or_numbers() {
    for (written, number) in
        [("TCP", Some(6)), ("17", Some(17)), ("", None), ("icmp", Some(1)), ("ip-in-ip", Some(4))]
    {
        let policy = accepted(&format!(
            r#""acls": [{{"action": "accept", "proto": "{written}", "dst": ["*:*"]}}]"#
        ));
        assert_eq!(policy.acls.expect("acls")[0].proto, number, "{written}");
    }
    for (written, message) in [
        ("06", r#"leading 0 not permitted in protocol number: "06""#),
        ("0", r#"leading 0 not permitted in protocol number: "0""#),
        ("256", "protocol number out of range (0-255): 256"),
        (
            "tpc",
            r#"invalid protocol number: "tpc" must be a known protocol name or valid protocol number 0-255"#,
        ),
        (
            "*",
            r#"proto name "*" not known; use protocol number 0-255 or protocol name (icmp, tcp, udp, etc.)"#,
        ),
        ("icmp", r#"protocol does not support specific ports: "icmp", only "*" is allowed"#),
    ] {
        check_acl(&format!(r#""proto": "{written}", "dst": ["*:80"]"#), ".proto", message);
    }
}

#[test]
fn entries_of_ip_are_ports_with_or_without_a_protocol() {
    let policy = accepted(r#""grants": [{"ip": ["*", "80", "22,80-443", "tcp:*", "47", "58:*"]}]"#);
    let grants = policy.grants.expect("grants");
    let protocols: Vec<_> = grants[0].ip.iter().map(|entry| entry.proto).collect();
    assert_eq!(protocols, [None, None, None, Some(6), None, Some(58)]);
    for (written, message) in [
        ("icmp", r#"port range "icmp": invalid first integer"#),
        ("0", r#"port range "0": first port must be >0, or use '*' for wildcard"#),
        (
            "tcp:80:90",
            "expected only one colon in Internet protocol and port type, got: [tcp 80 90](3)",
        ),
        (
            "TCP:80",
            r#"invalid protocol number: "TCP" must be a known protocol name or valid protocol number 0-255"#,
        ),
        (
            "*:80",
            r#"proto name "*" not known; use protocol number 0-255 or protocol name (icmp, tcp, udp, etc.)"#,
        ),
    ] {
        check_grant(&format!(r#""ip": ["{written}"]"#), ".ip[0]", message);
    }
}

#[test]
fn own_devices_are_reached_by_users_only() {
    let refused = "autogroup:self can only be used with users, groups, or supported autogroups";
    for source in
        ["tag:web", "web", "10.0.0.1", "ipset:lan", "autogroup:tagged", "autogroup:danger-all"]
    {
        check_acl(&format!(r#""src": ["{source}"], "dst": ["autogroup:self:*"]"#), ".dst", refused);
    }
    check_grant(r#""ip": ["*"], "src": ["*"], "dst": ["autogroup:self"]"#, ".dst", refused);
    accepted(
        r#""acls": [{"action": "accept", "dst": ["autogroup:self:*"],
            "src": ["*", "alice@example.com", "user:*@example.com", "group:admins", "autogroup:member"]}]"#,
    );
}

#[test]
fn grants_give_ports_or_capabilities() {
    check_grant(r#""ip": [], "app": {}"#, "", "ip and app can not both be empty");
    check_grant(r#""ip": ["*"], "via": ["group:admins"]"#, ".via[0]", "via can only be a tag");
    check_grant(r#""ip": ["*"], "via": ["tag:nil"]"#, ".via[0]", r#"tag "tag:nil" not found"#);
    check_grant(
        r#""app": {"a/b": []}, "dst": ["autogroup:internet"]"#,
        "",
        "cannot use app grants with autogroup:internet",
    );
    let form = "capability name must have the form {domain}/{path}";
    check_grant(r#""app": {"https://a/b": []}"#, r#".app["https://a/b"]"#, form);
    check_grant(r#""app": {"ab": []}"#, r#".app["ab"]"#, form);
    check_grant(
        r#""app": {"tailscale.com/cap/funnel": []}"#,
        r#".app["tailscale.com/cap/funnel"]"#,
        "capability name must not be in the tailscale.com domain",
    );
    check_grant(
        r#""app": {"a/b": [], "a/b": []}"#,
        r#".app["a/b"]"#,
        r#"duplicate member: "a/b" stands here already"#,
    );
    let policy = accepted(
        r#""grants": [{"app": {"a/b": [{ "x" : [1, 2.50,], /* c */ }, 7, 7], "tailscale.com/cap/drive": null}, "via": ["tag:web"]}]"#,
    );
    let app = &policy.grants.expect("grants")[0].app;
    let values: Vec<&str> = app[0].1.iter().map(|value| &*value.0).collect();
    assert_eq!(values, [r#"{"x":[1,2.50]}"#, "7", "7"]);
    assert_eq!((&*app[1].0, app[1].1.len()), ("tailscale.com/cap/drive", 0));
}

#[test]
fn ssh_is_for_users_and_tags() {
    for source in [
        "web",
        "10.0.0.1",
        "ipset:lan",
        "autogroup:danger-all",
        "autogroup:self",
        "autogroup:admin",
    ] {
        let message = format!(r#"alias not supported for SSH source: "{source}""#);
        check_ssh(&format!(r#""src": ["{source}"]"#), ".src[0]", &message);
    }
    check_ssh(
        r#""src": ["autogroup:internet"]"#,
        ".src[0]",
        "autogroup:internet can only be used in ACL destinations",
    );
    check_ssh(
        r#""src": ["user:*@example.org"]"#,
        ".src[0]",
        "[ssh] example.org is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
    );
    for destination in ["web", "nohost", "10.0.0.0/8", "group:admins", "user:*@example.com"] {
        let message = format!(
            r#"invalid dst "{destination}": an SSH destination is a tag, a user, autogroup:self, autogroup:member or autogroup:tagged"#
        );
        check_ssh(&format!(r#""dst": ["{destination}"]"#), ".dst[0]", &message);
    }
}

#[test]
fn ssh_destinations_go_with_their_sources() {
    check_ssh(
        r#""src": ["tag:web"], "dst": ["a@b"]"#,
        ".dst[0]",
        "tags in SSH source cannot access user-owned devices (a@b); use autogroup:tagged or specific tags as destinations instead",
    );
    check_ssh(
        r#""src": ["a@b", "c@d"], "dst": ["tag:web", "a@b"]"#,
        ".dst[1]",
        r#"user destination requires source to contain only that same user "a@b"; use autogroup:self instead for same-user SSH access"#,
    );
    check_ssh(
        r#""src": ["autogroup:tagged"], "dst": ["autogroup:self"]"#,
        ".dst[0]",
        "autogroup:self destination requires source to contain only users or groups, not tags or autogroup:tagged",
    );
    check_ssh(
        r#""src": ["tag:web"], "dst": ["autogroup:member"]"#,
        ".dst[0]",
        "tags in SSH source cannot access autogroup:member (user-owned devices)",
    );
    let policy = accepted(
        r#""ssh": [{"action": "accept", "src": ["a@b", "a@b"], "dst": ["a@b", "autogroup:self", "autogroup:member"], "users": ["root"],
            "recorder": "tag:web", "enforceRecorder": true, "acceptEnv": ["GIT_*"]}]"#,
    );
    assert!(policy.ssh[0].enforce_recorder);
    assert_eq!(policy.selector(policy.ssh[0].recorder[0]), &Selector::Tag("tag:web".into()));
}
