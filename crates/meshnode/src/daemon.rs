//! The daemon: one node, and its local API on a unix socket.

mod inbound;
mod interface;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use mesh_node::{Node, loopback};
use rustix::fs::Mode;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::settings::Settings;
use crate::state_dir::StateDir;

use interface::{Interface, Tun};

/// What is logged unless `RUST_LOG` says otherwise. WireGuard's library warns of every peer that is away.
const LOG_LEVELS: &str = "info,boringtun=error";

/// Runs a node until it is told to end, by a signal or through its socket.
pub(crate) async fn run(
    state_dir: &StateDir,
    settings: &Settings,
    auth_key: Option<String>,
) -> anyhow::Result<()> {
    start_logging();
    // Whatever a daemon makes is its user's alone, from the moment it is there.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let offered = settings.advertise_routes.as_deref().unwrap_or_default();
    let shields_up = settings.shields_up.unwrap_or_default();
    let stop = CancellationToken::new();
    end_by_signals(&stop)?;
    let (mut interface, tun) = settings.interface().map(Interface::open).transpose()?.unzip();
    let (has_interface, accept_routes) =
        (tun.is_some(), settings.accept_routes.unwrap_or_default());
    // Holds the lock on the directory, without which the socket might be another daemon's.
    let node = Arc::new(build(state_dir, settings, auth_key, tun).await?);
    settings.save(state_dir)?;
    let listener = state_dir.listen()?;
    info!(socket = %state_dir.socket().display(), "meshnode answers");
    sd_notify::notify(&[NotifyState::Ready])?;
    let router = loopback::router(Arc::clone(&node)).merge(shutdown_route(&stop));
    let local_api = |stream| loopback::serve_http(stream, router.clone());
    tokio::select! {
        never = loopback::serve_each(listener, local_api) => match never {},
        served = inbound::serve(&node, offered, has_interface), if !shields_up => match served? {},
        gone = interface::follow(interface.as_mut(), &node, accept_routes) => match gone? {},
        () = stop.cancelled() => {}
    }
    info!("meshnode ends");
    sd_notify::notify(&[NotifyState::Stopping])?;
    node.close().await;
    std::fs::remove_file(state_dir.socket())?;
    Ok(())
}

fn start_logging() {
    let levels = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_LEVELS));
    tracing_subscriber::fmt()
        .with_env_filter(levels)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}

/// Ends at the first signal to end. That a terminal goes away does not matter.
fn end_by_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => {}
            }
        }
        stop.cancel();
    });
    Ok(())
}

async fn build(
    state_dir: &StateDir,
    settings: &Settings,
    auth_key: Option<String>,
    tun: Option<Tun>,
) -> anyhow::Result<Node> {
    let Settings { login_server, hostname, .. } = settings.clone();
    let mut builder = Node::builder()
        .state_dir(state_dir.path())
        .hostname(hostname.unwrap_or_else(machine_name))
        .ephemeral(settings.ephemeral.unwrap_or_default())
        .port(settings.port.unwrap_or_default())
        .advertise_tags(settings.advertise_tags.iter().flatten().cloned())
        .advertise_routes(settings.advertise_routes.iter().flatten().copied())
        .accept_routes(settings.accept_routes.unwrap_or_default())
        .shields_up(settings.shields_up.unwrap_or_default());
    if let Some(tun) = tun {
        builder = builder.tun(tun);
    }
    if let Some(exit_node) = settings.exit_node {
        builder = builder.exit_node(exit_node);
    }
    if let Some(login_server) = login_server {
        builder = builder.control_url(login_server);
    }
    if let Some(auth_key) = auth_key {
        builder = builder.auth_key(auth_key);
    }
    Ok(builder.build().await?)
}

/// The first label of the machine's name.
fn machine_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Ends the daemon; beside the node's own local API, for a program's node ends with the program.
fn shutdown_route(stop: &CancellationToken) -> Router {
    let shutdown = async |State(stop): State<CancellationToken>| stop.cancel();
    Router::new().route("/localapi/v0/shutdown", post(shutdown)).with_state(stop.clone())
}
