//! `meshcontrol version`.

use std::env::consts::{ARCH, OS};

use serde_json::json;

use crate::session::Session;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this program was built from, where the build says so.
const COMMIT: &str = match option_env!("MESHCONTROL_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(crate) fn run(session: &Session) -> anyhow::Result<()> {
    let version = json!({ "version": VERSION, "commit": COMMIT, "os": OS, "arch": ARCH });
    session.output().value(&version, || format!("meshcontrol {VERSION} (commit {COMMIT})"))
}
