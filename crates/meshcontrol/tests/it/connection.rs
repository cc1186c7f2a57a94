//! Which server is spoken to, and how.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::fake::{Fake, Run, program};

#[test]
fn a_server_that_is_starting_is_waited_for() {
    let fake = Fake::new([(200, json!({ "users": [] }))]);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| fake.run("users list -o json"));
        std::thread::sleep(Duration::from_millis(300));
        fake.serve_socket();
        assert_eq!(run.join().unwrap().printed(), "[]\n");
    });
}

#[test]
fn the_socket_is_found_by_data_dir_and_configuration() {
    let fake = Fake::serving(json!({ "users": [] }));
    let data_dir = fake.data_dir();
    let by_flag = format!("users list -o json --data-dir {}", data_dir.display());
    assert_eq!(Run::from(program(&by_flag).output().unwrap()).printed(), "[]\n");
    let config = data_dir.join("config.yaml");
    fs::write(&config, "unix_socket: meshcontrol.sock\n").unwrap();
    let by_file = format!("users list -o json -c {} --data-dir /nonexistent", config.display());
    assert_eq!(Run::from(program(&by_file).output().unwrap()).printed(), "[]\n");
}

#[test]
fn a_remote_server_is_reached_with_a_key() {
    let fake = Fake::new([(200, json!({ "users": [] }))]);
    let address = format!("http://127.0.0.1:{}", fake.serve_tcp());
    let key = ("MESHCONTROL_CLI_API_KEY", "tskey-api-abc");
    for address in [address.clone(), format!("{address}/")] {
        let run =
            fake.run_with("users list -o json", &[("MESHCONTROL_CLI_ADDRESS", &address), key]);
        assert_eq!(run.printed(), "[]\n");
        let asked = fake.asked().pop().unwrap();
        assert_eq!(asked.line, "GET /api/v1/user");
        assert_eq!(asked.authorization.as_deref(), Some("Bearer tskey-api-abc"));
    }
}

#[test]
fn a_remote_server_needs_a_key_and_is_not_waited_for() {
    let fake = Fake::new([]);
    let address = ("MESHCONTROL_CLI_ADDRESS", "127.0.0.1:1");
    let run = fake.run_with("users list", &[address]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("MESHCONTROL_CLI_API_KEY"), "{}", run.err);
    let run = fake.run_with("users list", &[address, ("MESHCONTROL_CLI_API_KEY", "tskey-api-abc")]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains("https://127.0.0.1:1"), "{}", run.err);
    assert!(!run.err.contains("tskey"), "{}", run.err);
}
