//! `meshcontrol configtest`.

use mesh_config::report;
use serde_json::json;

use crate::derp::not_embedded;
use crate::session::Session;

/// Tells the warnings of a configuration that works; everything that is wrong with one that does not is
/// its error.
pub(crate) fn run(session: &Session, derp: bool) -> anyhow::Result<()> {
    let overrides = if derp { vec![not_embedded()] } else { Vec::new() };
    let warnings = session.load(overrides)?.warnings;
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    session.output().value(&json!({ "warnings": texts }), || match warnings.as_slice() {
        [] => "The configuration is good".to_owned(),
        warnings => format!("{}\nThe configuration is good", report(&[], warnings)),
    })
}
