//! A relay by itself: where its parts are wired together, started and stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_cli::Output;
use mesh_config::sections::DerpServer;
use mesh_config::{Config, Origin, Setting};
use mesh_derp_verify::Verifier;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{MeshHandle, Relay};
use mesh_wire::DerpRegion;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::doors::{Doors, Opener};
use super::mesh::Mesh;
use super::{admission, limits, operator, ready, region};
use crate::serve::{files, settings};
use crate::signals::Signals;

/// The region of a relay that nobody has numbered: the first of those for one's own use (`tailcfg.DERPRegion`).
const REGION_DEFAULT: u16 = 900;

/// The port of https, where a proxy that does TLS for us is.
const HTTPS: u16 = 443;

/// Runs the relay until it is told to stop. A second signal ends the process at once.
pub(crate) async fn run(
    mut config: Config,
    given: &[Setting],
    data_dir: &Path,
    output: Output,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // Also without files to look at: by default it would end the process.
    let _hangups = signal(SignalKind::hangup())?;
    config.derp.server.check_alone(given).context("the configuration does not work")?;
    files::raise_file_limit();
    files::make_data_dir(data_dir)?;
    name_region(&mut config.derp.server, given);
    let running = Running::start(&config, data_dir, output).await?;
    signals.next().await;
    signals.until_stopped(running.stop()).await;
    Ok(())
}

/// Gives the region another number and other names than those of the relay in a control server, where nobody
/// has given any.
fn name_region(settings: &mut DerpServer, given: &[Setting]) {
    let is_default = |path: &str| {
        given.iter().any(|setting| setting.path == path && setting.origin == Origin::Default)
    };
    if is_default("derp.server.region_id") {
        settings.region_id = REGION_DEFAULT;
    }
    if is_default("derp.server.region_code") {
        "relay".clone_into(&mut settings.region_code);
    }
    if is_default("derp.server.region_name") {
        "meshcontrol relay".clone_into(&mut settings.region_name);
    }
}

/// A running relay.
struct Running {
    relay: Relay,
    doors: Doors,
    /// Ends connections, and everything beside the relay.
    stop: CancellationToken,
    drain_timeout: Duration,
    /// Follows the list of nodes; it ends with the value.
    _follower: Option<AbortOnDropHandle<()>>,
    /// Connections to other relays; they end with the value.
    _mesh: Vec<MeshHandle>,
}

impl Running {
    async fn start(config: &Config, data_dir: &Path, output: Output) -> anyhow::Result<Self> {
        let settings = &config.derp.server;
        let key: DerpPrivate = files::private_key(&settings.private_key_path)?;
        let stop = CancellationToken::new();
        let verifier = admission::verifier(settings)?;
        let everybody = || Arc::new(|_: &NodePublic| true) as _;
        let admission = verifier.as_ref().map_or_else(everybody, Verifier::admission);
        let mesh = Mesh::read(&settings.mesh)?;
        let relay = Relay::with_mesh_key(key, mesh.key.clone(), admission, stop.clone());
        relay.set_limits(limits::limits(&settings.limits));
        operator::Operator::new(config, &relay, verifier.as_ref()).listen(&stop).await?;
        let follower = verifier.and_then(|verifier| verifier.spawn(relay.clone(), stop.clone()));
        let host = host(settings);
        let opener = Opener { relay: &relay, settings, host: &host, data_dir, stop: &stop };
        let doors = opener.open(settings.listen_addr).await?;
        let region = own_region(settings, &host, &doors)?;
        tracing::info!(
            relay.host = host,
            relay.tls = doors.tls.map(tracing::field::display),
            relay.http = doors.http.map(tracing::field::display),
            relay.stun = doors.stun.map(tracing::field::display),
            version = crate::version::VERSION,
            "the relay serves"
        );
        ready::print(output, &relay.public_key(), &region)?;
        let mesh = mesh.join(&relay);
        let drain_timeout = settings.drain_timeout;
        Ok(Self { relay, doors, stop, drain_timeout, _follower: follower, _mesh: mesh })
    }

    /// Closes the doors, lets clients go, and ends what is left.
    async fn stop(self) {
        self.relay.drain(self.drain_timeout).await;
        self.stop.cancel();
        self.doors.stopped().await;
    }
}

/// The name or address that clients know the relay by: as configured, else this machine's on its network.
fn host(settings: &DerpServer) -> String {
    let configured = settings.hostname.as_ref().map(|host| host.as_str().to_owned());
    configured.unwrap_or_else(|| settings::lan_address().to_string())
}

/// What clients are to be told. Several such relays can be in one region, where names differ.
fn own_region(settings: &DerpServer, host: &str, doors: &Doors) -> anyhow::Result<DerpRegion> {
    let tls = doors.tls.as_ref().map(SocketAddr::port);
    let port = tls.or_else(|| doors.http.map(|_| HTTPS));
    let port = port.context(
        "the relay has no door: set derp.server.listen_addr, or derp.server.http_listen_addr behind a proxy",
    )?;
    let name = format!("{}-{host}", settings.region_id);
    Ok(region::region(settings, region::node(settings, name, host, doors, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_nobody_has_named_is_not_that_of_a_control_server() {
        let defaults = Config::defaults(Path::new("/data")).derp.server;
        let named = |origin: Origin| {
            let mut settings = defaults.clone();
            let paths =
                ["derp.server.region_id", "derp.server.region_code", "derp.server.region_name"];
            let value = String::new();
            let given =
                paths.map(|path| Setting { path, value: value.clone(), origin: origin.clone() });
            name_region(&mut settings, &given);
            (settings.region_id, settings.region_code)
        };
        assert_eq!(named(Origin::Default), (900, "relay".to_owned()));
        let flag = Origin::Flag { flag: "--x".to_owned() };
        assert_eq!(named(flag), (defaults.region_id, defaults.region_code.clone()));
    }
}
