//! How failure is told: what to do, in the form that was asked for, and by the exit code.

use std::fs;

use serde_json::{Value, json};

use crate::fake::{Fake, Run, program};

fn problem(detail: &str) -> Value {
    json!({ "title": "Not Found", "status": 404, "detail": detail, "errors": [] })
}

#[test]
fn a_refusal_is_told_in_every_form() {
    let fake = Fake::serving_all([(404, problem("node not found: look again"))]);
    for (form, err) in [
        ("", "Error: node not found: look again\n"),
        ("-o json", "{\n  \"error\": \"node not found: look again\"\n}\n"),
        ("-o json-line", "{\"error\":\"node not found: look again\"}\n"),
        ("-o yaml", "error: \"node not found: look again\"\n"),
    ] {
        let run = fake.run(&format!("nodes show 7 {form}"));
        assert_eq!(run, Run { code: 1, out: String::new(), err: err.to_owned() });
    }
}

#[test]
fn answers_of_something_else_are_told() {
    let fake = Fake::serving_all([(502, json!("bad gateway"))]);
    let run = fake.run("nodes list");
    assert_eq!((run.code, &*run.err), (1, "Error: the server answered 502 Bad Gateway\n"));
    let fake = Fake::serving(json!({ "hello": "world" }));
    let run = fake.run("nodes list");
    assert_eq!(run.code, 1);
    assert!(run.err.contains("answered what a meshcontrol would not"), "{}", run.err);
}

#[test]
fn a_server_that_is_not_there_has_its_own_exit_code() {
    let fake = Fake::new([]);
    let run = fake.run("health -o json-line");
    assert_eq!((run.code, &*run.out), (3, ""));
    let err: Value = serde_json::from_str(&run.err).unwrap();
    let error = err["error"].as_str().unwrap();
    let socket = fake.data_dir().join("meshcontrol.sock");
    assert!(error.contains(socket.to_str().unwrap()), "{error}");
    assert!(error.contains("meshcontrol serve"), "{error}");
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    for line in ["nodes delete", "nodes frobnicate", "users list -o xml"] {
        let run = Run::from(program(line).output().unwrap());
        assert_eq!(run.code, 2, "{line}");
    }
}

#[test]
fn configtest_tells_everything_that_is_wrong() {
    let fake = Fake::new([]);
    let config = fake.data_dir().join("config.yaml");
    fs::write(&config, "listen_addr: nowhere\nunix_socket_permission: 9\nlisten_adr: x\n").unwrap();
    let line = format!("configtest --config {}", config.display());
    let run = fake.run(&line);
    assert_eq!(run.code, 1);
    for wanted in ["config.yaml:1:14", "config.yaml:2:25", "config.yaml:3:1", "2 errors, 1 warning"]
    {
        assert!(run.err.contains(wanted), "{wanted}: {}", run.err);
    }
    fs::write(&config, "listen_adr: x\n").unwrap();
    let out = fake.run(&format!("{line} -o json")).printed();
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out["warnings"].as_array().unwrap().len(), 1);
    fs::write(&config, "").unwrap();
    assert_eq!(fake.run(&line).printed(), "The configuration is good\n");
}
