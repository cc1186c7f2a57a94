use std::process::Command;

use serde_json::Value;

use crate::server::{Fault, Server};

/// Runs the harness and returns its report, and whether it was content.
async fn run(fault: Fault, arguments: &[&str]) -> (Value, bool) {
    let server = Server::start(fault).await;
    let mut harness = Command::new(env!("CARGO_BIN_EXE_meshharness"));
    harness.args(["--url", server.url(), "--json", "--limit", "4"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || harness.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{said}"));
    (report, output.status.success())
}

const SHARED: [&str; 4] = ["--keys", "good-key", "--nodes", "12"];

async fn check(fault: Fault, phases: &[&str], is_right: bool) -> Vec<Value> {
    let (report, content) = run(fault, &[&SHARED, phases].concat()).await;
    assert_eq!((report["right"].as_bool(), content), (Some(is_right), is_right), "{report:#}");
    report["phases"].as_array().unwrap().clone()
}

fn count(phase: &Value, field: &str) -> u64 {
    phase[field].as_u64().unwrap_or_else(|| panic!("no {field} in {phase:#}"))
}

fn names(phases: &[Value]) -> Vec<&str> {
    phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_server_is_right_in_every_phase() {
    let asked =
        ["join", "join-one", "flap", "endpoints", "reconnect", "churn=50/s,1s", "hold=50ms"];
    let phases = check(Fault::Nothing, &asked, true).await;
    assert_eq!(
        names(&phases),
        ["join", "join-one", "flap off", "flap on", "endpoints", "reconnect", "churn", "hold"]
    );
    for phase in &phases {
        assert_eq!((count(phase, "samples"), count(phase, "strays")), (1, 0), "{phase:#}");
    }
    assert_eq!((count(&phases[0], "nodes"), count(&phases[1], "nodes")), (12, 13));
    assert!(phases[4]["convergence"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert!(count(&phases[0], "json_bytes") > count(&phases[0], "bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_streams_and_stalled_readers_are_known() {
    let phases = check(Fault::Nothing, &["--compress", "none", "join"], true).await;
    assert_eq!(count(&phases[0], "missing"), 0);
    let phases = check(Fault::Nothing, &["join", "stall=3"], true).await;
    assert_eq!(names(&phases), ["join", "stall 0", "stall 3", "stall over"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_node_is_missing_to_all_others() {
    let phases = check(Fault::Forgets, &["join"], false).await;
    assert_eq!((count(&phases[0], "missing"), count(&phases[0], "wrong")), (11, 0));
    assert_eq!(count(&phases[0], "converged"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_listed_twice_is_extra() {
    let phases = check(Fault::Doubles, &["join", "reconnect"], false).await;
    assert_eq!((count(&phases[1], "extra"), count(&phases[1], "missing")), (11, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unseen_change_is_missing() {
    let phases = check(Fault::HidesOffline, &["join", "flap"], false).await;
    assert_eq!((count(&phases[1], "missing"), count(&phases[2], "missing")), (11, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_finds_what_sets_do_not_show() {
    let phases = check(Fault::Contradicts, &["join", "join-one"], false).await;
    assert_eq!((count(&phases[1], "missing"), count(&phases[1], "wrong")), (0, 0));
    let differences = phases[1]["differences"].to_string();
    assert!(differences.contains("Name is"), "{differences}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_borne() {
    let phases = check(Fault::Overloaded, &["join"], true).await;
    assert!(phases[0]["wall_ms"].as_f64().unwrap() >= 1000.0, "a second's pause was asked for");
    assert_eq!(count(&phases[0], "cuts"), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_say_who_is_there_and_sees_whom() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = file("keys", "good-key a tag:x\ngood-key b\ngood-key c\n");
    let right = file("right", "a b c\nb a c\nc a b\n");
    let narrow = file("narrow", "a b\nb a c\nc a b\n");
    let run = async |expected: &str, more: &[&str]| {
        run(Fault::Nothing, &[&["--keys", &keys, "--expect", expected], more].concat()).await
    };
    let (report, content) = run(&right, &["join", "join-one"]).await;
    assert!(content, "{report:#}");
    assert_eq!(count(&report["phases"][0], "nodes"), 2);
    let (report, content) = run(&narrow, &["join"]).await;
    assert!(!content);
    assert_eq!(count(&report["phases"][0], "wrong"), 1);
    let fails = ["--policy-cmd", "false", "join", "policy-edit"];
    let (report, content) = run(&right, &fails).await;
    assert!(!content && report["error"].as_str().unwrap().contains("failed"), "{report:#}");
    assert_eq!(count(&report["phases"][0], "converged"), 3);
    let edits = ["--policy-cmd", "test $EDIT = 1", "--policy-expect", &narrow];
    let (report, content) = run(&right, &[&edits[..], &["join", "policy-edit"]].concat()).await;
    assert!(!content);
    assert_eq!(count(&report["phases"][1], "wrong"), 1);
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let check = |arguments: &[&str], expected: &str| {
        let harness = Command::new(env!("CARGO_BIN_EXE_meshharness")).args(arguments).output();
        let output = harness.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
    };
    let url = ["--url", "http://127.0.0.1:9"];
    check(&[&url[..], &["--keys", "k", "join"]].concat(), "--nodes is missing");
    check(&[&url[..], &["--keys", "k", "--nodes", "9", "join"]].concat(), "no control server at");
    check(&[&url[..], &["--keys", "k", "--nodes", "9", "jion"]].concat(), "no such phase");
    let many = ["--keys", "k", "--nodes", "4000000000", "join"];
    check(&[&url[..], &many].concat(), "open files");
}
