//! `meshcontrol generate`.

use anyhow::Context as _;
use clap::Subcommand;
use mesh_keys::MachinePrivate;
use serde_json::json;

use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum GenerateVerb {
    /// Print a fresh private key, for a file such as `noise.private_key_path`
    #[command(after_help = "\
Example:
  meshcontrol generate private-key > noise_private.key")]
    PrivateKey,
}

impl GenerateVerb {
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::PrivateKey => {
                let key = MachinePrivate::generate().context("the system gives no randomness")?;
                let text = key.expose_text();
                session.output().value(&json!({ "private_key": text }), || text.clone())
            }
        }
    }
}
