//! `meshcontrol policy` without a server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Run, program};

/// A user's laptop and a tagged server.
fn topology() -> Value {
    json!({
        "domains": ["example.com"],
        "users": [{ "id": 1, "name": "alice", "login": "alice@example.com", "role": "owner" }],
        "nodes": [
            { "name": "laptop", "user": "alice", "ipv4": "100.64.0.1", "ipv6": "fd7a::1", "order": 1 },
            { "name": "server", "tags": ["tag:web"], "ipv4": "100.64.0.2", "ipv6": "fd7a::2", "order": 2 },
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
        "SrcIPs": ["100.64.0.1", "fd7a::1"],
        "DstPorts": [port("100.64.0.2"), port("fd7a::2")],
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
