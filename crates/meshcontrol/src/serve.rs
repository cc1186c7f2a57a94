//! `meshcontrol serve`: where the parts are wired together, started and stopped.

pub(crate) mod derp_map;
pub(crate) mod files;
pub(crate) mod metrics;
pub(crate) mod operator;
mod policy;
mod relay;
pub(crate) mod settings;
mod welcome;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_config::{Config, Setting};
use mesh_db::Database;
use mesh_keys::MachinePrivate;
use mesh_model::{Clock, TailnetId, Timestamp, truncate_to_millis};
use mesh_noise::Responder;
use mesh_server::api::debug::DebugState;
use mesh_server::api::{self, Access, Answering, AppState};
use mesh_server::secrets::{Attempts, HashCost, Verifier};
use mesh_server::{App, Listening, Parts, Slots, operator_router, public_router};
use mesh_state::State;
use mesh_store::{Handle, Persist as _, Writer};
use mesh_streamer::{Streamer, StreamerSettings};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::signals::Signals;
use metrics::Metrics;
use policy::{FirstPolicy, Follower};
use relay::Embedded;

/// The one tailnet there is.
const TAILNET: TailnetId = TailnetId(1);

/// How long open connections may take to end once they have been told to.
const DRAIN: Duration = Duration::from_secs(5);

/// The time as the operating system tells it.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes from")]
    fn now(&self) -> Timestamp {
        truncate_to_millis(Timestamp::now())
    }
}

/// Runs the server until it is told to stop. A second signal ends the process at once.
pub(crate) async fn run(
    config: Config,
    settings: Vec<Setting>,
    data_dir: &Path,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // Also without a policy file: by default it would end the process.
    let hangups = signal(SignalKind::hangup())?;
    files::raise_file_limit();
    files::make_data_dir(data_dir)?;
    let mut server = Server::start(config, settings, data_dir, hangups).await?;
    tokio::select! {
        () = signals.next() => {}
        () = server.storage.fails() => anyhow::bail!("the node store has ended: the log says why"),
    }
    signals.until_stopped(server.stop()).await;
    Ok(())
}

/// A running server.
struct Server {
    storage: Storage,
    relay: Option<Embedded>,
    /// Ends listeners, streams and channels.
    soft: CancellationToken,
    connections: TaskTracker,
    channels: TaskTracker,
    unix_socket: PathBuf,
}

/// The database, and the writer in front of it.
struct Storage {
    database: Arc<Database>,
    store: Handle,
    writer: JoinHandle<()>,
    /// Ends the writer, once nobody needs it any more.
    hard: CancellationToken,
}

impl Storage {
    /// Opens it, with the policy in force; if that is a file, it wants to be followed.
    async fn open(
        config: &Config,
        clock: &Arc<dyn Clock>,
        metrics: mesh_store::Metrics,
    ) -> anyhow::Result<(Self, Option<Follower>)> {
        let database = Database::open(&settings::database(config)).await?;
        let connections_max = config.database.postgres.max_open_conns;
        let database = Arc::new(database.with_connections_max(connections_max));
        let loaded = database.load(TAILNET).await.context("cannot read the tailnet")?;
        let first = FirstPolicy::read(config, &loaded.tailnet).await?;
        let settings = settings::state(config);
        let state = State::new(TAILNET, loaded, first.policy.clone(), settings, clock.now());
        let (writer, store) = Writer::new(state, database.clone(), clock.clone());
        let hard = CancellationToken::new();
        let writer = tokio::spawn(writer.with_metrics(metrics).run(hard.clone()));
        let follower = first.settle(&store).await?;
        Ok((Self { database, store, writer, hard }, follower))
    }

    /// Ends when the writer has ended by itself, with which the server is of no more use.
    async fn fails(&mut self) {
        if let Err(error) = (&mut self.writer).await {
            tracing::error!(%error, "the writer failed");
        }
    }

    /// Has what still waits written, and closes the database.
    async fn close(self) {
        self.hard.cancel();
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the writer failed");
        }
        self.database.close().await;
    }
}

impl Server {
    async fn start(
        config: Config,
        settings: Vec<Setting>,
        data_dir: &Path,
        hangups: Signal,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let started_at = clock.now();
        let metrics = Metrics::new();
        let noise_key: MachinePrivate = files::private_key(&config.noise.private_key_path)?;
        let tls = settings::tls(&config)?.map(TlsAcceptor::from);
        let server_url = settings::server_url(&config);
        let soft = CancellationToken::new();
        let (storage, follower) = Storage::open(&config, &clock, metrics.store.clone()).await?;
        let store = storage.store.clone();
        let relay =
            relay::start(&config, &server_url, store.clone(), clock.clone(), data_dir).await?;
        let region = relay.as_ref().and_then(|relay| relay.region.clone());
        let (contexts, map_age) = derp_map::spawn_contexts(&config, region, soft.clone()).await?;
        let streamer = Streamer::measured(
            store.clone(),
            contexts.clone(),
            clock.clone(),
            StreamerSettings::default(),
            soft.clone(),
            metrics.streamer.clone(),
        );
        let argon2 = &config.preauth_keys.argon2;
        let cost = HashCost::new(argon2.memory_kib, argon2.iterations)?;
        let channels = TaskTracker::new();
        let app = App::new(Parts {
            store,
            streamer,
            contexts,
            verifier: Arc::new(Verifier::new(cost)?.with_metrics(metrics.server.clone())),
            attempts: Arc::new(Attempts::new()),
            responder: Responder::new(&noise_key),
            noise_key: noise_key.public(),
            server_url,
            relay: relay.as_ref().map(|relay| relay.relay.clone()),
            database: Arc::new(Answering::new(storage.database.clone())),
            bodies: settings::bodies(&config),
            handshakes: Arc::new(Semaphore::new(settings::handshakes(&config))),
            timeouts: settings::timeouts(&config),
            slots: settings::slots(&config),
            metrics: metrics.server.clone(),
            clock,
            stop: soft.clone(),
            channels: channels.clone(),
        });
        let connections = TaskTracker::new();
        let policy_file = follower.as_ref().map(Follower::shown);
        let debug = DebugState { app: app.clone(), settings: settings.into(), started_at };
        let listeners =
            Listeners { config: &config, debug: &debug, policy_file, connections: &connections };
        listeners.listen(tls).await?;
        let registry = metrics.into_registry(&app, app.relay.as_ref(), map_age);
        listeners.listen_for_operator(registry).await?;
        if let Some(follower) = follower {
            connections.spawn(follower.measured(app.metrics.clone()).run(hangups, soft.clone()));
        }
        if app.store.snapshot().tailnet.node_count() == 0 {
            welcome::print(&app.server_url, data_dir)?;
        }
        let unix_socket = config.unix_socket;
        Ok(Self { storage, relay, soft, connections, channels, unix_socket })
    }

    /// Stops accepting, ends streams and channels, writes what is left, and closes the database.
    async fn stop(self) {
        self.soft.cancel();
        self.connections.close();
        self.channels.close();
        let relay_drain = self.relay.as_ref().map(Embedded::drain_timeout).unwrap_or_default();
        let drained = async {
            if let Some(relay) = self.relay {
                relay.drain().await;
            }
            self.connections.wait().await;
            self.channels.wait().await;
        };
        if tokio::time::timeout(DRAIN + relay_drain, drained).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
        }
        self.storage.close().await;
        // The next start removes a socket that is left behind, so failing here costs nothing.
        let _ = std::fs::remove_file(&self.unix_socket);
    }
}

/// What the listeners serve, and how.
struct Listeners<'a> {
    config: &'a Config,
    debug: &'a DebugState,
    policy_file: Option<api::PolicyFile>,
    connections: &'a TaskTracker,
}

impl Listeners<'_> {
    /// Opens the public listener and the unix socket. The admin API is on both: on the socket its permissions
    /// are the authentication, and there one may look inside too.
    async fn listen(&self, tls: Option<TlsAcceptor>) -> anyhow::Result<()> {
        let (config, app) = (self.config, &self.debug.app);
        let public = bind(config).await?;
        let local = bind_unix(config)?;
        tracing::info!(
            server.url = app.server_url,
            server.listen = %config.listen_addr,
            server.tls = tls.is_some(),
            version = env!("CARGO_PKG_VERSION"),
            "meshcontrol serves"
        );
        let admin = |access| api::router(self.admin(access));
        let routes = public_router(app.clone()).merge(admin(Access::ApiKeys));
        self.connections.spawn(self.listening(routes, app.slots.clone()).run_tcp(public, tls));
        let routes = admin(Access::Everybody).merge(self.look_inside(Access::Everybody));
        self.connections.spawn(self.listening(routes, app.slots.clone()).run_unix(local));
        Ok(())
    }

    /// Opens the listener for metrics, if it is wanted. Looking inside takes an API key there, on the loopback too: other
    /// users of the machine reach it, and so does what runs in their browsers.
    async fn listen_for_operator(&self, registry: Registry) -> anyhow::Result<()> {
        let Some(listener) = operator::bind(self.config.metrics_listen_addr).await? else {
            return Ok(());
        };
        let routes = operator_router(self.debug.app.clone(), registry)
            .merge(self.look_inside(Access::ApiKeys));
        let slots = Slots::new(operator::CONNECTIONS_MAX, operator::CONNECTIONS_MAX);
        self.connections.spawn(self.listening(routes, slots).run_tcp(listener, None));
        Ok(())
    }

    fn look_inside(&self, access: Access) -> axum::Router {
        api::debug::router(self.admin(access), self.debug.clone())
    }

    fn admin(&self, access: Access) -> AppState {
        let app = &self.debug.app;
        AppState {
            store: app.store.clone(),
            verifier: app.verifier.clone(),
            attempts: app.attempts.clone(),
            clock: app.clock.clone(),
            database: app.database.clone(),
            policy_file: self.policy_file.clone(),
            metrics: app.metrics.clone(),
            contexts: app.contexts.clone(),
            body_bytes_max: app.bodies.api,
            stop: app.stop.clone(),
            access,
        }
    }

    fn listening(&self, router: axum::Router, slots: Slots) -> Listening {
        Listening {
            router,
            slots,
            header_timeout: self.config.limits.header_timeout,
            tls_timeout: self.config.limits.handshake_timeout,
            stall_timeout: self.config.limits.stall_timeout,
            trusted_proxies: self.config.trusted_proxies.clone().into(),
            stop: self.debug.app.stop.clone(),
            connections: self.connections.clone(),
        }
    }
}

async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.listen_addr;
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another with --listen ADDR or listen_addr")
    })
}

/// Binds the unix socket; one that nobody serves any more is removed first.
fn bind_unix(config: &Config) -> anyhow::Result<UnixListener> {
    let path = &config.unix_socket;
    let shown = path.display();
    if path.exists() {
        let is_served = std::os::unix::net::UnixStream::connect(path).is_ok();
        anyhow::ensure!(
            !is_served,
            "another meshcontrol serves {shown}: stop it, or set unix_socket"
        );
        std::fs::remove_file(path)
            .with_context(|| format!("cannot remove the stale socket {shown}"))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {shown}"))?;
    let mode = std::fs::Permissions::from_mode(config.unix_socket_permission.bits());
    std::fs::set_permissions(path, mode)
        .with_context(|| format!("cannot set the mode of {shown}"))?;
    Ok(listener)
}
