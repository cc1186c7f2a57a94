//! The whole bench, small.

use std::process::Command;

use serde_json::Value;

#[test]
fn node_in_a_small_tailnet_is_measured() {
    let output = Command::new(env!("CARGO_BIN_EXE_giantnode"))
        .args(["measure", "--nodes", "1000", "--steps", "10"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["nodes"], &figures["steps"]), (&1_000.into(), &10.into()));
    for figure in ["/first_map_ms", "/unwatched/wall", "/watched/wall", "/watched/node_cpu"] {
        let value = figures.pointer(figure).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{figure} in {figures}");
    }
}
