//! `meshcontrol derp`: a relay by itself, without a database; and what it shares with the one in `meshcontrol serve`.

mod admission;
mod alone;
mod certificate;
pub(crate) mod doors;
pub(crate) mod limits;
pub(crate) mod mesh;
mod operator;
mod ready;
pub(crate) mod region;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mesh_config::Override;

use crate::session::{Loaded, Session};

/// What `derp` takes beside its configuration.
#[derive(Debug, Args)]
pub(crate) struct DerpArgs {
    /// Name or address by which clients reach the relay, instead of `derp.server.hostname`
    #[arg(long, value_name = "HOST")]
    hostname: Option<String>,
    /// Address and port for TLS, instead of `derp.server.listen_addr`; "" for none
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address and port for plain http, instead of `derp.server.http_listen_addr`
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Certificate chain in PEM, instead of `derp.server.tls_cert_path`
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, instead of `derp.server.tls_key_path`
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// URL that knows who may use the relay, instead of `derp.server.verify.url`
    #[arg(long, value_name = "URL")]
    verify_url: Option<String>,
    /// Serve everybody who finds the relay
    #[arg(long, conflicts_with = "verify_url")]
    open: bool,
}

impl DerpArgs {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Loaded { config, warnings, data_dir, settings } = session.load(self.overrides()?)?;
        crate::logs::start(&config.log);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        alone::run(config, &settings, &data_dir, session.output()).await
    }

    fn overrides(self) -> anyhow::Result<Vec<Override>> {
        let closed = self.open.then(|| "false".to_owned());
        let flags = [
            ("--hostname", "derp.server.hostname", self.hostname),
            ("--listen", "derp.server.listen_addr", self.listen),
            ("--http", "derp.server.http_listen_addr", self.http),
            (
                "--cert",
                "derp.server.tls_cert_path",
                self.cert.as_deref().map(from_here).transpose()?,
            ),
            ("--key", "derp.server.tls_key_path", self.key.as_deref().map(from_here).transpose()?),
            ("--verify-url", "derp.server.verify.url", self.verify_url),
            ("--open", "derp.server.verify_clients", closed),
        ];
        let given = flags.into_iter().filter_map(|(flag, path, value)| {
            Some(Override { flag: flag.to_owned(), path: path.to_owned(), value: value? })
        });
        Ok(given.chain([not_embedded()]).collect())
    }
}

/// A path as it is meant on the command line: those of keys begin where the configuration is.
fn from_here(path: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(path)?;
    absolute
        .into_os_string()
        .into_string()
        .ok()
        .with_context(|| format!("{} is not UTF-8: give it another name", path.display()))
}

/// Has the configuration read as that of a relay by itself: no address of `serve` is in its way.
pub(crate) fn not_embedded() -> Override {
    Override {
        flag: "derp".to_owned(),
        path: "derp.server.enabled".to_owned(),
        value: "false".to_owned(),
    }
}
