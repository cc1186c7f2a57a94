//! Who may use a relay that runs by itself.

use anyhow::{Context as _, bail};
use mesh_config::HttpUrl;
use mesh_config::sections::{DerpServer, DerpVerify};
use mesh_derp_verify::{Asks, Options, Verifier};

use crate::serve::files;

/// Asks whom the configuration names; `None` if everybody may use the relay.
pub(crate) fn verifier(settings: &DerpServer) -> anyhow::Result<Option<Verifier>> {
    if !settings.verify_clients {
        return Ok(None);
    }
    let Some(asks) = asks(&settings.verify)? else {
        bail!(
            "nobody says who may use the relay: name a control server with --verify-url \
             https://HOST/verify or below derp.server.verify, or serve everybody with --open"
        );
    };
    let options = Options { asks, fail_open: settings.verify.fail_open };
    Ok(Some(Verifier::new(options).context("derp.server.verify does not work")?))
}

fn asks(verify: &DerpVerify) -> anyhow::Result<Option<Asks>> {
    if let Some((url, path)) = verify.control_url.as_ref().zip(verify.api_key_path.as_ref()) {
        let shown = path.display();
        let text = files::read_private(path).with_context(|| format!("cannot read {shown}"))?;
        let api_key = text.trim().to_owned();
        return Ok(Some(Asks::Control { url: url.origin(), api_key }));
    }
    let socket = verify.control_socket.clone().map(Asks::ControlSocket);
    Ok(socket.or_else(|| verify.url.as_ref().map(HttpUrl::to_text).map(Asks::Url)))
}
