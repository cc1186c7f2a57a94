//! The configuration file, as an operator may leave it.

/// Any text as a `config.yaml`; whatever is found in it can be told.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match mesh_config::parse(text) {
        Ok((_, warnings)) => drop(mesh_config::report(&[], &warnings)),
        Err(problems) => drop(problems.to_string()),
    }
}
