//! The embedded relay, and the region that it is in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_config::Config;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_model::Clock;
use mesh_relay::{MeshHandle, Relay};
use mesh_server::derp_nodes::{is_served, run_cutter};
use mesh_store::Handle;
use mesh_wire::DerpRegion;
use tokio_util::sync::CancellationToken;

use super::files;
use crate::derp::doors::{Doors, Opener};
use crate::derp::mesh::Mesh;
use crate::derp::{limits, region};

/// A running relay and the region it serves.
pub(crate) struct Embedded {
    pub(crate) relay: Relay,
    /// What clients are told of it, if the map is to have it.
    pub(crate) region: Option<DerpRegion>,
    doors: Doors,
    drain_timeout: Duration,
    /// Connections to other relays; they end with the value.
    _mesh: Vec<MeshHandle>,
    /// Ends the relay; later than what else runs here.
    stop: CancellationToken,
}

/// Starts the embedded relay, if it is enabled, with its doors: a TLS listener of its own, unless the main listener is
/// its door; plain http; STUN.
pub(crate) async fn start(
    config: &Config,
    server_url: &str,
    store: Handle,
    clock: Arc<dyn Clock>,
    data_dir: &Path,
) -> anyhow::Result<Option<Embedded>> {
    let settings = &config.derp.server;
    if !settings.enabled {
        return Ok(None);
    }
    let key: DerpPrivate = files::private_key(&settings.private_key_path)?;
    let stop = CancellationToken::new();
    let verify = settings.verify_clients;
    let nodes = store.clone();
    let admission =
        move |key: &NodePublic| !verify || is_served(&nodes.snapshot(), key, clock.now());
    let mesh = Mesh::read(&settings.mesh)?;
    let relay = Relay::with_mesh_key(key, mesh.key.clone(), Arc::new(admission), stop.clone());
    relay.set_limits(limits::limits(&settings.limits));
    tokio::spawn(run_cutter(relay.clone(), store, stop.clone()));

    let url: http::Uri = server_url.parse().context("the server's URL")?;
    let url_host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let host = settings.hostname.as_ref().map_or(url_host, |host| host.as_str());
    let opener = Opener { relay: &relay, settings, host, data_dir, stop: &stop };
    let doors = opener.open(settings.own_listen_addr(config)).await?;
    let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
    let public = url.port_u16().unwrap_or(default);
    let port = doors.tls.map_or(public, |address| address.port());
    let node = region::node(settings, format!("{}a", settings.region_id), host, &doors, port);
    let is_told = settings.automatically_add_embedded_derp_region;
    let region = is_told.then(|| region::region(settings, node));
    let drain_timeout = settings.drain_timeout;
    let mesh = mesh.join(&relay);
    Ok(Some(Embedded { relay, region, doors, drain_timeout, stop, _mesh: mesh }))
}

impl Embedded {
    /// How long [`Self::drain`] takes at most.
    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Closes the doors, lets clients go, and ends what is left.
    pub(crate) async fn drain(self) {
        self.relay.drain(self.drain_timeout).await;
        self.stop.cancel();
        self.doors.stopped().await;
    }
}
