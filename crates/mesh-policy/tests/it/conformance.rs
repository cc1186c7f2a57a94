//! Policies that the service was given: what it accepts is accepted here, what it rejects is rejected in its words.
//!
//! The cases lie beside the project, or where `MESHCONTROL_CONFORMANCE_DIR` says; without them there is nothing to do.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_policy::Policy;
use serde_json::Value;

const VARIABLE: &str = "MESHCONTROL_CONFORMANCE_DIR";

#[test]
fn captured_policies_are_accepted_or_rejected_as_the_service_does() {
    let folder = env::var_os(VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/policy"),
        PathBuf::from,
    );
    let Ok(categories) = fs::read_dir(folder.join("cases")) else {
        println!("skipped: no cases in {}", folder.display());
        return;
    };
    let mut count = 0;
    let mut failures = Vec::new();
    for category in categories {
        for file in fs::read_dir(category.expect("an entry").path()).expect("a category") {
            count += 1;
            failures.extend(check(&folder, &json(&file.expect("an entry").path())).err());
        }
    }
    println!("{} of {count} policies", count - failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(folder: &Path, case: &Value) -> Result<(), String> {
    let id = case["id"].as_str().expect("an id");
    let text = case["policy"].as_str().expect("a policy");
    let topology = case["topology"].as_str().expect("a topology");
    let topology = json(&folder.join(format!("topologies/{topology}.json")));
    let domains: Vec<String> =
        serde_json::from_value(topology["domains"].clone()).unwrap_or_default();
    let message = case["error_message"].as_str().filter(|text| !text.contains("test(s) failed"));
    match (Policy::parse(text, Some(&domains)), message) {
        (Ok(_), None) => Ok(()),
        (Ok(_), Some(message)) => Err(format!("{id}: accepted, against {message}")),
        (Err(problems), None) => Err(format!("{id}: rejected: {problems}")),
        (Err(problems), Some(message)) if problems.to_string().contains(message) => Ok(()),
        (Err(problems), Some(message)) => Err(format!("{id}: wanted {message}, got {problems}")),
    }
}

fn json(path: &Path) -> Value {
    let name =
        if path.extension().is_some() { path.to_owned() } else { path.with_extension("json") };
    let bytes = fs::read(&name).unwrap_or_else(|error| panic!("{}: {error}", name.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}
