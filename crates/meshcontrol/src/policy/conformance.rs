//! What `policy eval` says of tailnets that the real control plane served, compared with what it told their clients.
//!
//! The cases lie outside of the project: in the folder `MESHCONTROL_CONFORMANCE_DIR`, else in
//! `../shared/conformance/policy` beside the checkout. Its README tells the shape of a case and how it is judged.

mod difference;
mod judge;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use self::difference::Difference;
use super::eval::Evaluation;
use super::topology::Topology;

/// One policy, the tailnet it was pushed to, and what the control plane made of it.
#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    policy: String,
    accepted: bool,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    tailnet: Value,
    #[serde(default)]
    default_auto_update_cap: Value,
    topology: String,
    #[serde(default)]
    compare: Compare,
    /// `routes:<node>`: its routes were on the move.
    #[serde(default)]
    unstable: Vec<String>,
    #[serde(default)]
    expect: Map<String, Value>,
}

/// How a case is compared.
#[derive(Debug, Default, Deserialize)]
struct Compare {
    /// `address-set`: only which addresses there are counts.
    #[serde(default, rename = "SrcIPs")]
    src_ips: Option<String>,
}

#[test]
fn every_captured_case_is_reproduced() {
    let Some(directory) = directory() else { return };
    let cases = cases(&directory);
    let mut report = String::new();
    let (mut agreeing, mut facts) = (0, 0);
    for case in &cases {
        let differences = run(case, &directory);
        agreeing += usize::from(differences.is_empty());
        facts += differences.len();
        for difference in differences {
            writeln!(report, "{difference}").unwrap();
        }
    }
    say(&format!("{report}policy: {agreeing} of {} cases, {facts} facts differ", cases.len()));
    assert!(!cases.is_empty() && agreeing == cases.len(), "see above");
}

/// Past the capture of the test's output: the figures are wanted of a good run too.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").unwrap();
}

/// Where the cases are, if they are there.
fn directory() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "names data of tests, not configuration")]
    let named = std::env::var("MESHCONTROL_CONFORMANCE_DIR").ok().map(PathBuf::from);
    let beside =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/policy");
    let directory = named.unwrap_or_else(beside);
    let is_there = directory.join("cases").is_dir();
    if !is_there {
        say(&format!("policy: skipped, for no cases are in {}", directory.display()));
    }
    is_there.then_some(directory)
}

fn cases(directory: &Path) -> Vec<Case> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    };
    let files = list(&directory.join("cases")).into_iter().flat_map(|category| list(&category));
    files.map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// All that differs, also once `autoApprovers` have to find out themselves which routes are approved.
fn run(case: &Case, directory: &Path) -> Vec<Difference> {
    let file = directory.join("topologies").join(format!("{}.json", case.topology));
    let mut topology: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    topology["tailnet"] = case.tailnet.clone();
    topology["default_auto_update_cap"] = case.default_auto_update_cap.clone();
    let mut differences = judge::judge(case, &evaluate(case, &topology));
    if case.accepted && forget_approvals(&mut topology) {
        let again = judge::judge(case, &evaluate(case, &topology));
        differences.extend(again.into_iter().map(Difference::without_approvals));
    }
    differences
}

/// What `policy eval` prints.
fn evaluate(case: &Case, topology: &Value) -> Value {
    let topology = Topology::parse(topology.to_string().as_bytes()).unwrap();
    serde_json::to_value(Evaluation::new(case.policy.as_bytes(), &topology)).unwrap()
}

/// Takes `approved_routes` out; says whether there were any.
fn forget_approvals(topology: &mut Value) -> bool {
    let nodes = topology["nodes"].as_array_mut().unwrap();
    let forgotten =
        nodes.iter_mut().filter_map(|node| node.as_object_mut()?.remove("approved_routes"));
    forgotten.count() > 0
}
