use std::fmt::Write as _;

use proptest::prelude::*;

use crate::policy::{Policy, Selector};

/// Definitions that the policies of these tests use.
const DEFINITIONS: &str = r#"
    "groups": {"group:admins": ["alice@example.com"], "group:none": null},
    "hosts": {"web": "100.64.0.9", "net": "10.0.0.1/8"},
    "tagOwners": {"tag:web": ["group:admins", "bob@"], "tag:db": ["tag:web", "autogroup:admin"], "tag:loop": ["tag:loop"]},
    "ipsets": {"ipset:lan": ["10.0.0.0/8", "remove 10.1.0.0/16"]},
    "postures": {"posture:mac": ["node:os == 'macos'"]},
"#;

fn parse(sections: &str) -> Result<Policy, String> {
    let text = format!("{{{DEFINITIONS}{sections}}}");
    Policy::parse(&text, Some(&["example.com".to_owned()])).map_err(|problems| problems.to_string())
}

#[track_caller]
fn accepted(sections: &str) -> Policy {
    parse(sections).unwrap_or_else(|problems| panic!("{sections}\n{problems}"))
}

/// Each policy has the problem, and no other.
#[track_caller]
fn check(sections: &str, path: &str, message: &str) {
    let problems = parse(sections).expect_err(sections);
    let expected = format!("{path}: {message}");
    assert!(problems.ends_with(&expected), "{sections}\n{problems}\nis not\n{expected}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[track_caller]
fn check_acl(members: &str, path: &str, message: &str) {
    check(
        &format!(r#""acls": [{{"action": "accept", {members}}}]"#),
        &format!("acls[0]{path}"),
        message,
    );
}

#[track_caller]
fn check_grant(members: &str, path: &str, message: &str) {
    check(&format!(r#""grants": [{{{members}}}]"#), &format!("grants[0]{path}"), message);
}

#[track_caller]
fn check_ssh(members: &str, path: &str, message: &str) {
    check(
        &format!(r#""ssh": [{{"action": "accept", "users": ["root"], {members}}}]"#),
        &format!("ssh[0]{path}"),
        message,
    );
}

/// Every selector with the name that Debug gives it.
fn names(policy: &Policy, ids: &[crate::SelectorId]) -> Vec<String> {
    ids.iter().map(|id| format!("{:?}", policy.selector(*id))).collect()
}

mod ends;
mod sections;

#[test]
fn nothing_is_the_default_and_blank_is_not() {
    assert_eq!(Policy::parse("", None), Ok(Policy::default()));
    assert!(Policy::parse(" ", None).is_err());
    assert!(Policy::parse("null", None).is_err());
    assert_eq!(Policy::parse("\u{feff}{}", None), Ok(Policy::default()));
    assert!(Policy::parse(&" ".repeat((4 << 20) + 1), None).is_err());
}

#[test]
fn null_is_absent_and_empty_is_not() {
    let policy = accepted(r#""acls": null, "GRANTS": []"#);
    assert_eq!(policy.acls, None);
    assert_eq!(policy.grants, Some(Vec::new()));
}

#[test]
fn names_of_members_are_known_in_any_case_and_once() {
    let policy = accepted(
        r##""AclS": [{"Action": "accept", "SRC": ["*"], "dst": ["*:*"], "#note": {"a": 1}}]"##,
    );
    assert_eq!(policy.acls.map_or(0, |acls| acls.len()), 1);
    check(r#""acl": []"#, "", r#"unknown field: "acl" (did you mean "acls"?)"#);
    check(r#""acls": [], "ACLS": []"#, "", r#"duplicate member: "ACLS" stands here already"#);
    check_grant(r##""ip": ["*"], "#note": 1"##, "", r##"unknown field: "#note""##);
    check_acl(r#""srcs": []"#, "", r#"unknown field: "srcs" (did you mean "src"?)"#);
}

#[test]
fn values_of_the_wrong_kind_are_told() {
    check(r#""acls": {}"#, "acls", "this has to be a list, and it is an object");
    check(r#""acls": [1]"#, "acls[0]", "this has to be an object, and it is a number");
    check_acl(r#""src": "*""#, ".src", "this has to be a list, and it is a text");
    check_acl(r#""src": [null]"#, ".src[0]", "this has to be a text, and it is null");
    check(
        r#""disableIPv4": "yes""#,
        "disableIPv4",
        "this has to be true or false, and it is a text",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let sections = r#""acls": [{"action": "drop", "src": ["tag:wbe"], "dst": ["tag:web:x", "*:0"]}], "ssh": [{}]"#;
    let problems = parse(sections).expect_err("problems");
    assert_eq!(problems.lines().count(), 6, "{problems}");
    let text = format!(r#"{{"acls": [{}]}}"#, "1,".repeat(150));
    let problems = Policy::parse(&text, None).expect_err("problems");
    assert_eq!((problems.problems.len(), problems.more), (100, 50));
}

#[test]
fn selectors_are_kept_once() {
    let policy = accepted(
        r#""acls": [
            {"action": "accept", "src": ["tag:web", " tag:web "], "dst": ["tag:web:1-2,80", "[fd00::1]:*", "fd00::1/128:443"]},
        ]"#,
    );
    assert_eq!(
        policy
            .selectors
            .iter()
            .filter(|s| matches!(s, Selector::Tag(t) if &**t == "tag:web"))
            .count(),
        1
    );
    let acls = policy.acls.as_ref().expect("acls");
    assert_eq!(acls[0].src[0], acls[0].src[1]);
    assert_eq!(acls[0].dst[1].selector, acls[0].dst[2].selector);
    assert_eq!(acls[0].line, 8);
}

fn snapshot(text: &str) -> String {
    let domains = ["example.com".to_owned()];
    Policy::parse(text, Some(&domains)).expect_err("problems").to_string()
}

#[test]
fn five_broken_policies_read_well() {
    insta::assert_snapshot!("names", snapshot(include_str!("../../testdata/broken/names.hujson")));
    insta::assert_snapshot!(
        "syntax",
        snapshot(include_str!("../../testdata/broken/syntax.hujson"))
    );
    insta::assert_snapshot!("rules", snapshot(include_str!("../../testdata/broken/rules.hujson")));
    insta::assert_snapshot!("ssh", snapshot(include_str!("../../testdata/broken/ssh.hujson")));
    insta::assert_snapshot!(
        "sections",
        snapshot(include_str!("../../testdata/broken/sections.hujson"))
    );
}

fn repeated(head: &str, each: impl Fn(usize) -> String, count: usize, tail: &str) -> String {
    let mut text = head.to_owned();
    for index in 0..count {
        // A writer into a string cannot fail.
        let _ = write!(text, "{}", each(index));
    }
    text + tail
}

#[test]
fn hostile_shapes_end_soon() {
    let acl = r#"{"acls": [{"action": "accept", "src": ["#;
    let shapes = [
        "[".repeat(1 << 20),
        repeated(r#"{"acls": ["#, |_| "0,".to_owned(), 100_000, "]}"),
        repeated(r#"{"acls": ["#, |_| r#"{"action":"accept"},"#.to_owned(), 100_000, "]}"),
        repeated(acl, |index| format!("\"10.{}.0.0/16\",", index % 256), 100_000, "]}]}"),
        repeated(acl, |index| format!("\"u{index}@\","), 100_000, "]}]}"),
        repeated(acl, |index| format!("\"tag:t{index}\","), 100_000, "]}]}"),
        repeated(r#"{"grants": [{"ip": ["#, |_| "\"*\",".to_owned(), 200_000, "]}]}"),
        repeated(
            r#"{"groups": {"#,
            |index| format!("\"group:{index}\":[\"group:{}\"],", index + 1),
            50_000,
            "}}",
        ),
        repeated(
            r#"{"ipsets": {"#,
            |index| format!("\"ipset:{index}\":[\"ipset:{}\"],", index + 1),
            50_000,
            "}}",
        ),
        repeated(
            r#"{"ipsets": {"ipset:a": ["#,
            |index| format!("\"{}10.0.0.{}\",", ["", "remove "][index % 2], index % 256),
            50_000,
            "]}}",
        ),
        repeated(
            r#"{"postures": {"posture:a": ["a:b IN [1"#,
            |_| ",1".to_owned(),
            300_000,
            "]\"]}}",
        ),
        repeated(r#"{"defaultSrcPosture": ["#, |_| "\"a\",".to_owned(), 100_000, "]}"),
        repeated(
            r#"{"ssh": [{"src": ["#,
            |_| "\"a@\",".to_owned(),
            100_000,
            &format!(r#"], "dst": [{}]}}]}}"#, "\"b@\",".repeat(100_000)),
        ),
    ];
    for text in &shapes {
        let start = std::time::Instant::now();
        let parsed = Policy::parse(text, None);
        let took = start.elapsed();
        assert!(took.as_secs() < 10, "{took:?} for {}", &text[..60]);
        let _ = parsed.map_err(|problems| problems.to_string());
    }
}

/// Pieces of policies, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "true",
        "1",
        "\"\"",
        "\"*\"",
        "\"*:*\"",
        "\"acls\"",
        "\"action\"",
        "\"accept\"",
        "\"src\"",
        "\"dst\"",
        "\"grants\"",
        "\"ip\"",
        "\"app\"",
        "\"groups\"",
        "\"group:a\"",
        "\"a@b\"",
        "\"hosts\"",
        "\"10.0.0.1\"",
        "\"tagOwners\"",
        "\"tag:a\"",
        "\"ssh\"",
        "\"users\"",
        "\"checkPeriod\"",
        "\"1h\"",
        "\"ipsets\"",
        "\"ipset:a\"",
        "\"remove 1.1.1.1\"",
        "\"postures\"",
        "\"posture:a\"",
        "\"a:b IN ['c']\"",
        "// \n",
        "\"nodeAttrs\"",
        "\"target\"",
        "\"ipPool\"",
        "\"autoApprovers\"",
        "\"routes\"",
        "\"tests\"",
        "\"sshTests\"",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Policies whose shape is right and whose texts are anything.
fn shaped() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        r"[a-z:*@/0-9\[\],.\- ]{0,12}",
        "(group|tag|autogroup|ipset|localpart|user):[a-z*@]{0,6}",
        "[a-z]+ (IN|==|NOT SET) .{0,5}"
    ];
    let texts = prop::collection::vec(text, 12).prop_map(|texts| {
        texts.iter().map(|t| serde_json::to_string(t).expect("JSON")).collect::<Vec<_>>()
    });
    texts.prop_map(|t| format!(
        r#"{{"groups": {{{}: [{}]}}, "hosts": {{{}: {}}}, "tagOwners": {{{}: [{}]}}, "ipsets": {{{}: [{}, {}]}},
        "postures": {{"posture:a": [{}]}}, "acls": [{{"action": "accept", "proto": {}, "src": [{}], "dst": [{}]}}],
        "grants": [{{"src": [{}], "dst": [{}], "ip": [{}]}}], "ssh": [{{"action": "check", "checkPeriod": {}, "users": [{}],
        "src": [{}], "dst": [{}]}}], "nodeAttrs": [{{"target": [{}], "ipPool": [{}]}}]}}"#,
        t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11], t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9],
    ))
}

proptest! {
    #[test]
    fn any_text_gives_a_policy_or_problems(text in prop_oneof![any::<String>(), pieces(), shaped()]) {
        match Policy::parse(&text, None) {
            Ok(_) => {}
            Err(problems) => prop_assert!(!problems.to_string().is_empty()),
        }
    }
}
