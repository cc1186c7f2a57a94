//! What `cargo xtask test` hands over in the environment.

use anyhow::{Context as _, Result};

/// The server and its command line.
pub(crate) const BINARY: &str = "MESHCONTROL_TEST_BINARY";
/// The tsnet driver on the newest client version.
pub(crate) const TSNET: &str = "MESHCONTROL_TEST_TSNET";
/// The tsnet driver on the oldest client version.
pub(crate) const TSNET_OLD: &str = "MESHCONTROL_TEST_TSNET_OLD";
/// The driver of the `tailscale` crate.
pub(crate) const TAILSCALE_RS: &str = "MESHCONTROL_TEST_TAILSCALE_RS";
/// Go's relay.
pub(crate) const DERPER: &str = "MESHCONTROL_TEST_DERPER";
/// The driver of the bundled node, which Cargo builds with the scenarios and names to them.
pub(crate) const OURS: &str = "CARGO_BIN_EXE_ours";
/// The program that fills a database with a synthetic tailnet.
pub(crate) const GIANT: &str = "MESHCONTROL_TEST_GIANT";
/// A Postgres whose role may create databases.
pub(crate) const POSTGRES_URL: &str = "MESHCONTROL_TEST_POSTGRES_URL";

/// How many small clients scenarios with many of them have, if not as many as they have by default.
const NODES: &str = "MESHCONTROL_TEST_NODES";

/// How many small clients a scenario is to have that has `by_default` of them.
#[expect(clippy::disallowed_methods, reason = "what a test run hands over is no configuration")]
pub fn nodes(by_default: usize) -> usize {
    let asked = std::env::var(NODES).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(by_default)
}

/// The value of a variable without which a scenario cannot run.
#[expect(clippy::disallowed_methods, reason = "what a test run hands over is no configuration")]
pub(crate) fn required(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| {
        format!("{variable} is not set: run the scenarios with `cargo xtask test`, which builds what they drive")
    })
}
