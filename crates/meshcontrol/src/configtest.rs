//! `meshcontrol configtest`.

use anyhow::{Context as _, ensure};
use mesh_config::report;
use mesh_config::sections::DerpVerify;
use serde_json::json;

use crate::derp::doors::check_certificate;
use crate::derp::mesh::Mesh;
use crate::derp::not_embedded;
use crate::serve::files;
use crate::session::{Loaded, Session};

/// Tells the warnings of a configuration that works; everything that is wrong with one that does not is
/// its error.
pub(crate) fn run(session: &Session, derp: bool) -> anyhow::Result<()> {
    let overrides = if derp { vec![not_embedded()] } else { Vec::new() };
    let loaded = session.load(overrides)?;
    if derp {
        check_relay(&loaded)?;
    }
    let warnings = loaded.warnings;
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    session.output().value(&json!({ "warnings": texts }), || match warnings.as_slice() {
        [] => "The configuration is good".to_owned(),
        warnings => format!("{}\nThe configuration is good", report(&[], warnings)),
    })
}

/// Looks through what `meshcontrol derp` looks through at its start, and changes nothing.
fn check_relay(loaded: &Loaded) -> anyhow::Result<()> {
    let settings = &loaded.config.derp.server;
    let found = [
        settings.check_alone(&loaded.settings).map_err(anyhow::Error::from),
        check_api_key(&settings.verify),
        Mesh::read(&settings.mesh).map(drop),
        check_certificate(settings),
    ];
    let faults = found.into_iter().filter_map(Result::err);
    let faults: Vec<String> = faults.map(|fault| format!("{fault:#}")).collect();
    ensure!(faults.is_empty(), "the relay would not start:\n{}", faults.join("\n"));
    Ok(())
}

fn check_api_key(verify: &DerpVerify) -> anyhow::Result<()> {
    let Some(path) = &verify.api_key_path else { return Ok(()) };
    let text = files::read_private(path);
    text.map(drop).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use mesh_config::{Source, load, settings};

    use super::*;

    /// What is wrong with a relay of this configuration.
    fn told(text: &str) -> String {
        let data_dir = PathBuf::from("/nowhere");
        let source = Source {
            file: Some((data_dir.join("relay.yaml"), text.to_owned())),
            overrides: vec![not_embedded()],
            data_dir: data_dir.clone(),
            ..Source::default()
        };
        let (config, warnings) = load(&source).expect("accepted");
        let loaded = Loaded { config, warnings, data_dir, settings: settings(&source) };
        check_relay(&loaded).err().map_or_else(String::new, |error| format!("{error:#}"))
    }

    #[test]
    fn all_that_a_relay_would_not_start_for_is_told_at_once() {
        let told = told(
            "derp: {server: {mesh: {key_path: m, with: ['a b c']}, tls_cert_path: c, \
             tls_key_path: k}}\n",
        );
        for wanted in ["nobody says who may use the relay", "/nowhere/m", "/nowhere/c"] {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
    }

    #[test]
    fn an_api_key_must_be_there() {
        let told = told("derp: {server: {verify: {control_url: 'https://h', api_key_path: k}}}\n");
        assert!(told.contains("cannot read /nowhere/k"), "{told}");
    }

    #[test]
    fn the_configuration_in_the_manual_starts() {
        let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/relay.md");
        let manual = std::fs::read_to_string(manual).expect("the manual");
        let (_, text) = manual.split_once("# /etc/meshcontrol/relay.yaml\n").expect("the example");
        let (text, _) = text.split_once("\n\n").expect("its end");
        assert_eq!(told(&format!("{text}\n")), "");
    }
}
