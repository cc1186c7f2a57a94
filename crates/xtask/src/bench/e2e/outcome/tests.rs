//! Tables of what came out.

use std::path::PathBuf;

use super::super::adapter::Side;
use super::super::workload::{Sizes, Workload, sessions};
use super::{Outcomes, Reported, is_part};

fn said(cpu: f64, missing: usize) -> String {
    format!(
        r#"{{"phases": [{{"name": "join", "nodes": 5, "converged": 5, "wall_ms": 1500.0, "convergence":
        {{"p50_ms": 700.0, "p99_ms": 1400.0, "max_ms": 1500.0}}, "wrong": 0, "missing": {missing}, "extra": 0,
        "bytes": 7000000, "own_cpu_s": 0.5, "server": {{"cpu_until_converged_s": 0.1, "cpu_until_quiet_s":
        {cpu}, "quiet_ms": 1600.0, "memory_peak_bytes": 90000000}}}}]}}"#
    )
}

fn table(runs: &[(&str, String)]) -> String {
    let sizes = Sizes { nodes: Some(5), rules: None };
    let session = &sessions(&[Workload::W1].into(), sizes)[0];
    let mut outcomes = Outcomes::default();
    for (index, (name, said)) in runs.iter().enumerate() {
        let side = Side::new(name, PathBuf::new()).unwrap();
        let reported = Reported::new("1".to_owned(), said.clone(), None);
        outcomes.add(session, sizes.is_full(), &side, index + 1, reported);
    }
    outcomes.to_string()
}

#[test]
fn other_servers_are_compared_with_the_first() {
    let text = table(&[("meshcontrol-sqlite", said(0.2, 0)), ("headscale", said(24.0, 0))]);
    assert!(
        text.contains("|  |  | 200.0 ms, wall 1.50 s | 24.00 s (120 x), wall 1.50 s |"),
        "{text}"
    );
    let line = "| W1 join, 5 nodes | headscale | 2 | 100.0 ms / 24.00 s | 1.50 s | 700.0 ms / 1.40 s | 90 MB | 7 MB | \
                500.0 ms | 0 wrong, 0 missing, 0 extra |";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_run_that_is_not_right_or_not_over_has_no_median() {
    let text = table(&[("meshcontrol-sqlite", said(0.2, 1)), ("headscale", String::new())]);
    assert!(text.contains("|  |  | none finished | none finished |"), "{text}");
    assert!(text.contains("0 wrong, 1 missing, 0 extra"), "{text}");
    assert!(text.contains("| headscale | 2 | not reached |"), "{text}");
}

#[test]
fn parts_of_phases_belong_to_them() {
    assert!(is_part("flap-off", "flap") && is_part("join", "join"));
    assert!(!is_part("join-one", "join"));
}
