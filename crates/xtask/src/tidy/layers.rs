//! Dependencies point down the layers of the root manifest.

use cargo_metadata::DependencyKind;

use super::Problem;
use super::house::{House, Layer, Member};

/// Who may use a crate of its own layer. Everything else points strictly down.
const WITHIN_LAYER: [(&str, &[&str]); 12] = [
    ("mesh-model", &["mesh-keys"]),
    ("mesh-wire", &["mesh-keys"]),
    ("mesh-state", &["mesh-policy"]),
    ("mesh-netmap", &["mesh-policy", "mesh-state"]),
    ("mesh-path", &["mesh-disco"]),
    ("mesh-db", &["mesh-store"]),
    ("mesh-streamer", &["mesh-store"]),
    ("mesh-client", &["mesh-noise-io"]),
    ("mesh-derp-verify", &["mesh-relay"]),
    // Its tests connect to a relay, and relays of a mesh connect to each other by it.
    ("mesh-derp-client", &["mesh-relay"]),
    ("mesh-relay", &["mesh-derp-client", "mesh-tls"]),
    ("mesh-server", &["mesh-config"]),
];

/// What tests of any layer may use, though it stands aside or above: fixtures, and the client that folds what
/// the cores have to say.
const FOR_TESTS: [&str; 2] = ["mesh-testkit", "mesh-client"];

/// Checks every dependency of one member on another.
pub(super) fn check(house: &House) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in &house.members {
        let package = &house.metadata[&member.id];
        for dependency in &package.dependencies {
            let Some(used) = house.member(&dependency.name) else { continue };
            let in_tests = dependency.kind == DependencyKind::Development;
            let is_for_tests = in_tests && FOR_TESTS.contains(&used.name.as_str());
            if !is_for_tests && !may_use(member, used) {
                let what = format!(
                    "{} may not use {}: dependencies point down the layers of the root Cargo.toml; \
                     move the shared part to a lower crate",
                    member.name, used.name
                );
                problems.push(member.dependency_problem(&used.name, &what));
            }
        }
    }
    problems
}

fn may_use(member: &Member, used: &Member) -> bool {
    match (member.layer, used.layer) {
        (Layer::Aside, _) => true,
        (Layer::Numbered(_), Layer::Aside) => false,
        (Layer::Numbered(above), Layer::Numbered(below)) => {
            below < above || below == above && within_layer(&member.name, &used.name)
        }
    }
}

fn within_layer(member: &str, used: &str) -> bool {
    WITHIN_LAYER.iter().any(|(user, may)| *user == member && may.contains(&used))
}
