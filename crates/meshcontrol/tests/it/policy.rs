//! `meshcontrol policy`, with a server that answers what a test says, and without one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Fake, Run, program};

/// A user's laptop and a tagged server.
fn topology() -> Value {
    json!({
        "domains": ["example.com"],
        "users": [{ "id": 1, "name": "alice", "login": "alice@example.com", "role": "owner" }],
        "nodes": [
            { "name": "laptop", "user": "alice", "ipv4": "100.64.0.1", "ipv6": "fd7a:115c:a1e0::1", "order": 1 },
            { "name": "server", "tags": ["tag:web"], "ipv4": "100.64.0.2", "ipv6": "fd7a:115c:a1e0::2", "order": 2 },
        ],
    })
}

const WEB: &str = r#"{
  // Alice reads the web server.
  "tagOwners": {"tag:web": ["alice@example.com"]},
  "acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:80"]}],
}"#;

/// Files in a directory of their own.
struct Files(TempDir);

impl Files {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("policy.hujson"), policy).unwrap();
        fs::write(directory.path().join("tailnet.json"), topology().to_string()).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, line: &str) -> Run {
        program(line).current_dir(self.path()).output().unwrap().into()
    }

    /// A run that may ask a server.
    fn ask(&self, fake: &Fake, line: &str) -> Run {
        let mut command = program(line);
        command.env("MESHCONTROL_DATA_DIR", fake.data_dir());
        command.current_dir(self.path()).output().unwrap().into()
    }

    fn eval(&self) -> Run {
        self.run("policy eval --policy policy.hujson --topology tailnet.json")
    }
}

#[test]
fn an_accepted_policy_is_evaluated_for_every_node() {
    let answer: Value = serde_json::from_str(&Files::new(WEB).eval().printed()).unwrap();
    let port = |ip| json!({ "IP": ip, "Ports": { "First": 80, "Last": 80 } });
    let mut rule = answer["expect"]["server"]["packet_filter_rules"][0].clone();
    rule["DstPorts"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    let expected = json!({
        "SrcIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
        "DstPorts": [port("100.64.0.2"), port("fd7a:115c:a1e0::2")],
    });
    assert_eq!(rule, expected);
    let laptop = json!({ "packet_filter_rules": [], "peers": { "server": {} } });
    assert_eq!(answer["expect"]["laptop"], laptop);
    assert_eq!(answer["accepted"], json!(true));
}

#[test]
fn a_rejected_policy_is_told_as_json_with_exit_code_1() {
    let run =
        Files::new(r#"{"acls": [{"action": "deny", "src": ["tag:db"], "dst": ["*:*"]}]}"#).eval();
    assert_eq!((run.code, run.err.as_str()), (1, "Error: the policy policy.hujson is rejected\n"));
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer["accepted"], json!(false));
    let message = answer["error_message"].as_str().unwrap();
    assert!(message.contains(r#"action="deny" is not supported"#), "{message}");
    assert!(message.contains(r#"src=tag not found: "tag:db""#), "{message}");
}

#[test]
fn a_policy_whose_tests_fail_is_rejected() {
    let policy = WEB.replace(
        "\"acls\"",
        r#""tests": [{"src": "alice@example.com", "accept": ["tag:web:81"]}], "acls""#,
    );
    let run = Files::new(&policy).eval();
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &answer["accepted"]), (1, &json!(false)));
    assert!(answer["error_message"].as_str().unwrap().contains("test(s) failed"), "{answer}");
}

#[test]
fn bytes_that_are_no_text_are_a_rejected_policy() {
    let files = Files::new("");
    fs::write(files.path().join("policy.hujson"), b"{\"acls\": [\xff]}").unwrap();
    let run = files.eval();
    assert_eq!(run.code, 1);
    assert!(run.out.contains("UTF-8"), "{}", run.out);
}

#[test]
fn without_a_tailnet_nothing_is_evaluated() {
    let files = Files::new(WEB);
    fs::write(files.path().join("tailnet.json"), r#"{"nodes": [{"name": "x"}]}"#).unwrap();
    let run = files.eval();
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    let why = "the topology tailnet.json is no good: the node x has neither a user nor tags";
    assert_eq!(run.err, format!("Error: {why}\n"));
}

/// The policy that a server has.
fn answer(policy: &str) -> Value {
    json!({
        "policy": policy,
        "updatedAt": "2026-01-02T03:04:05Z",
        "updatedBy": "cli",
        "version": "3",
        "digest": "0123456789abcdef".repeat(4),
        "mode": "database",
        "problem": null,
    })
}

#[test]
fn a_policy_is_printed_as_it_was_written() {
    let fake = Fake::serving(answer(WEB));
    assert_eq!(fake.run("policy get").printed(), WEB);
    assert_eq!(fake.run("policy get --version 2").printed(), WEB);
    let json: Value = serde_json::from_str(&fake.run("policy get -o json").printed()).unwrap();
    assert_eq!(json, answer(WEB));
    let asked: Vec<String> = fake.asked().into_iter().map(|asked| asked.line).collect();
    let get = "GET /api/v1/policy";
    assert_eq!(asked, [get, "GET /api/v1/policy/versions/2", get]);
}

#[test]
fn a_policy_file_that_is_not_in_force_is_warned_of() {
    let mut kept = answer(WEB);
    kept["problem"] = json!("it is empty");
    let run = Fake::serving(kept).run("policy get");
    let warning = "Warning: the policy file as it is now is not in force: it is empty\n";
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, WEB, warning));
}

#[test]
fn versions_are_listed() {
    let version = |id: &str, by: &str| {
        let digest = "0123456789abcdef".repeat(4);
        json!({ "id": id, "digest": digest, "bytes": 1234, "createdAt": "2026-01-02T03:04:05Z", "createdBy": by })
    };
    let fake = Fake::serving(json!({ "versions": [version("1", "file"), version("2", "cli")] }));
    insta::assert_snapshot!(fake.run("policy versions").printed());
}

#[test]
fn a_policy_is_set_from_a_file() {
    let (files, fake) = (Files::new(WEB), Fake::serving(answer("")));
    let set = files.ask(&fake, "policy set --file policy.hujson");
    assert_eq!(set.printed(), "Policy set: version 3\n");
    let asked = &fake.asked()[0];
    assert_eq!((asked.line.as_str(), &asked.body), ("PUT /api/v1/policy", &json!(WEB)));
    let set = files.ask(&fake, "policy set --file policy.hujson --output json");
    let set: Value = serde_json::from_str(&set.printed()).unwrap();
    assert_eq!(set["policy"], WEB, "whether the server repeats it or not");
}

#[test]
fn a_report_says_by_its_exit_code_whether_all_went_well() {
    for (passed, code) in [(true, 0), (false, 1)] {
        let report = json!({ "text": "the report", "passed": passed, "tests": [] });
        let (files, fake) = (Files::new(WEB), Fake::serving(report));
        let run = files.ask(&fake, "policy test");
        assert_eq!((run.code, run.out.as_str()), (code, "the report\n"));
        let run = files.ask(&fake, "policy test --file policy.hujson -o json-line");
        let json: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(json, json!({ "passed": passed, "tests": [] }));
        let bodies: Vec<Value> = fake.asked().into_iter().map(|asked| asked.body).collect();
        assert_eq!(bodies, [json!({ "policy": "" }), json!({ "policy": WEB })]);
    }
}

#[test]
fn an_explanation_is_asked_of_the_server() {
    let fake = Fake::serving(json!({ "text": "a -> b: refused", "verdict": "refused" }));
    let line = "policy explain alice@example.com tag:web:80 --proto tcp";
    assert_eq!(fake.run(line).printed(), "a -> b: refused\n");
    let asked = &fake.asked()[0];
    assert_eq!(asked.line, "POST /api/v1/policy/explain");
    let body =
        json!({ "src": "alice@example.com", "dst": "tag:web:80", "proto": "tcp", "policy": "" });
    assert_eq!(asked.body, body);
}

#[test]
fn a_difference_is_asked_of_the_server() {
    let fake = Fake::serving(json!({ "text": "nothing changes", "nodes": 2 }));
    let files = Files::new(WEB);
    let run = files.ask(&fake, "policy diff --file policy.hujson");
    assert_eq!(run.printed(), "nothing changes\n");
    let asked = &fake.asked()[0];
    let expected = ("POST /api/v1/policy/diff", &json!({ "policy": WEB }));
    assert_eq!((asked.line.as_str(), &asked.body), expected);
}

#[test]
fn a_difference_is_worked_out_over_a_tailnet_from_a_file() {
    let files = Files::new(WEB);
    fs::write(files.path().join("new.hujson"), WEB.replace(":80", ":80,443")).unwrap();
    let line = "policy diff --file new.hujson --policy policy.hujson --topology tailnet.json";
    insta::assert_snapshot!(files.run(line).printed());
}

#[test]
fn a_policy_is_laid_out() {
    let files = Files::new("{\"acls\":[],// nobody\n}");
    let laid_out = files.run("policy fmt --file policy.hujson").printed();
    assert!(laid_out.contains("// nobody"), "{laid_out}");
    assert_eq!(files.run("policy fmt --file policy.hujson --write").printed(), "");
    assert_eq!(fs::read_to_string(files.path().join("policy.hujson")).unwrap(), laid_out);
    assert_eq!(files.run("policy fmt --file policy.hujson").printed(), laid_out);
    fs::write(files.path().join("policy.hujson"), "{\"acls\": [}").unwrap();
    let run = files.run("policy fmt --file policy.hujson");
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with("Error: policy.hujson:1:11: "), "{}", run.err);
}

/// Output and exit code of a check.
fn checked(policy: &str, line: &str) -> String {
    let Run { code, out, err } =
        Files::new(policy).run(&format!("policy check --file policy.hujson {line}"));
    format!("{out}{err}exit code {code}\n")
}

#[test]
fn a_good_policy_passes_the_check() {
    let shown = checked(WEB, "");
    assert_eq!(shown, "policy.hujson can be used: 1 acl\nthe policy has no tests\nexit code 0\n");
    let tested = WEB.replace(
        "\"acls\"",
        r#""tests": [{"src": "alice@example.com", "accept": ["tag:web:80"]}], "acls""#,
    );
    insta::assert_snapshot!(checked(&tested, "--topology tailnet.json"));
}

#[test]
fn a_check_without_a_tailnet_says_that_tests_were_not_run() {
    let policy = WEB.replace(
        "\"acls\"",
        r#""tests": [{"src": "alice@example.com", "accept": ["tag:web:81"]}], "acls""#,
    );
    let shown = checked(&policy, "--data-dir /nonexistent");
    assert!(shown.contains("its tests were not run: no answer from /nonexistent/"), "{shown}");
    assert!(shown.ends_with("exit code 0\n"), "{shown}");
}

#[test]
fn a_check_runs_tests_on_the_server() {
    let report = json!({ "text": "1 of 1 test(s) failed", "passed": false, "tests": [] });
    let fake = Fake::serving(report);
    let files = Files::new(
        &WEB.replace("\"acls\"", r#""tests": [{"src": "x@", "deny": ["tag:web:81"]}], "acls""#),
    );
    let run = files.ask(&fake, "policy check --file policy.hujson -o json-line");
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json, json!({ "valid": false, "tests": { "passed": false, "tests": [] } }));
    assert_eq!((run.code, fake.asked().len()), (1, 1));
}

#[test]
fn tests_that_fail_are_told_with_the_rules_that_let_them() {
    let policy = WEB.replace(
        "\"acls\"",
        r#""tests": [{"src": "alice@example.com", "accept": ["tag:web:81"], "deny": ["tag:web:80"]}], "acls""#,
    );
    insta::assert_snapshot!(checked(&policy, "--topology tailnet.json"));
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let policy = r#"{
  "groups": {"group:admins": ["alice@example.com"]},
  "tagOwners": {"tag:web": ["group:admns"]},
  "acls": [
    {"action": "accept", "src": ["group:admin"], "dst": ["tag:wbe:443"]},
    {"action": "allow", "src": ["*"], "dst": ["tag:web:99999", "tag:web"]},
  ],
  "sshh": [],
}"#;
    insta::assert_snapshot!(checked(policy, ""));
}

#[test]
fn a_text_that_ends_early_is_told_with_its_place() {
    insta::assert_snapshot!(checked("{\n  \"acls\": [\n    {\"action\": \"accept\"\n", ""));
}

#[test]
fn problems_are_there_for_programs_too() {
    insta::assert_snapshot!(checked(r#"{"hosts": {"db": "10.0.0.300"}}"#, "-o json"));
}
