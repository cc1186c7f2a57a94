//! Reading manifests line by line.

use super::{check_reasons, line_of, opts_into_lints};

#[test]
fn a_dependency_without_a_reason_is_named_with_its_line() {
    let manifest = "[workspace.dependencies]\n\
        mesh-keys = { path = \"crates/mesh-keys\" }\n\
        \n\
        # Runtime\n\
        tokio = \"1\" # the runtime\n\
        bytes = \"1\"\n\
        \n\
        [profile.dev]\n\
        debug = 1\n";
    let problems: Vec<_> = check_reasons(manifest).iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["Cargo.toml:6: bytes needs a `# why` behind it"]);
}

#[test]
fn lints_are_opted_into_by_their_own_table() {
    assert!(opts_into_lints("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n"));
    assert!(!opts_into_lints("[package]\nname = \"x\"\n"));
    assert!(!opts_into_lints("[lints]\n[dependencies]\nworkspace = true\n"));
}

#[test]
fn a_dependency_is_found_by_its_whole_name() {
    let manifest = "[dependencies]\nserde_json.workspace = true\nserde = \"1\"\n";
    assert_eq!(line_of(manifest, "serde"), 3);
    assert_eq!(line_of(manifest, "serde_json"), 2);
    assert_eq!(line_of(manifest, "tokio"), 1);
}
