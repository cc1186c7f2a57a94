//! Who may use a relay that runs by itself.

use anyhow::Context as _;
use mesh_config::HttpUrl;
use mesh_config::sections::{DerpServer, DerpVerify};
use mesh_derp_verify::{ApiKeySource, Asks, Options, Verifier};

use crate::serve::files;

/// Asks whom the configuration names, which [`DerpServer::check_alone`] has found good; `None` if everybody may use the
/// relay.
pub(crate) fn verifier(settings: &DerpServer) -> anyhow::Result<Option<Verifier>> {
    if !settings.verify_clients {
        tracing::warn!("everybody may use this relay");
        return Ok(None);
    }
    let asks = asks(&settings.verify)?.context("nobody says who may use the relay")?;
    let options = Options { asks, fail_open: settings.verify.fail_open };
    Ok(Some(Verifier::new(options).context("derp.server.verify does not work")?))
}

fn asks(verify: &DerpVerify) -> anyhow::Result<Option<Asks>> {
    if let Some((url, path)) = verify.control_url.as_ref().zip(verify.api_key_path.as_ref()) {
        // That others may read it is said once, not at each attempt.
        files::read_private(path).with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.clone();
        let api_key = ApiKeySource::new(move || std::fs::read_to_string(&path));
        return Ok(Some(Asks::Control { url: url.origin(), api_key }));
    }
    let socket = verify.control_socket.clone().map(Asks::ControlSocket);
    Ok(socket.or_else(|| verify.url.as_ref().map(HttpUrl::to_text).map(Asks::Url)))
}
