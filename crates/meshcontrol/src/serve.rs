//! `meshcontrol serve`: where the parts are wired together, started and stopped.

mod files;
mod relay;
mod settings;
mod welcome;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mesh_config::Config;
use mesh_db::Database;
use mesh_keys::MachinePrivate;
use mesh_model::{Clock, TailnetId, Timestamp, truncate_to_millis};
use mesh_noise::Responder;
use mesh_server::api::{self, Access, AppState};
use mesh_server::secrets::{Attempts, HashCost, Verifier};
use mesh_server::{App, BodyLimits, Listening, Parts, Slots, public_router};
use mesh_state::State;
use mesh_store::{Persist as _, Writer};
use mesh_streamer::{Streamer, StreamerSettings};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The one tailnet there is.
const TAILNET: TailnetId = TailnetId(1);

/// How long open connections may take to end once they have been told to.
const DRAIN: Duration = Duration::from_secs(5);

/// The time as the operating system tells it.
#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes from")]
    fn now(&self) -> Timestamp {
        truncate_to_millis(Timestamp::now())
    }
}

/// Runs the server until it is told to stop. A second signal ends the process at once.
pub(crate) async fn run(config: Config, data_dir: &Path) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    files::make_data_dir(data_dir)?;
    let server = Server::start(config, data_dir).await?;
    signals.next().await;
    tracing::info!("stopping; another signal stops at once");
    tokio::select! {
        biased;
        () = signals.next() => {
            tracing::warn!("stopped without waiting");
            std::process::exit(1);
        }
        () = server.stop() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that ask us to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A running server.
struct Server {
    database: Arc<Database>,
    /// Ends listeners, streams, channels and the relay.
    soft: CancellationToken,
    /// Ends the writer, once nobody needs it any more.
    hard: CancellationToken,
    connections: TaskTracker,
    channels: TaskTracker,
    writer: tokio::task::JoinHandle<()>,
    unix_socket: std::path::PathBuf,
}

impl Server {
    async fn start(config: Config, data_dir: &Path) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let noise_key: MachinePrivate = files::private_key(&config.noise.private_key_path)?;
        let tls = settings::tls(&config)?;
        let server_url = settings::server_url(&config);

        let database = Arc::new(Database::open(&settings::database(&config)).await?);
        let loaded = database.load(TAILNET).await.context("cannot read the tailnet")?;
        let state = State::new(TAILNET, loaded, settings::state(&config), clock.now());
        let (writer, store) = Writer::new(state, database.clone(), clock.clone());
        let writer = tokio::spawn(writer.run(hard.clone()));

        let relay = relay::start(&config, &server_url, store.clone(), data_dir, &soft).await?;
        let regions = relay::DerpRegions::gather(&config, relay.region).await?;
        let contexts = watch::Sender::new(Arc::new(settings::map_context(&config, regions.map())));
        let context_reader = contexts.subscribe();
        relay::spawn_refresh(regions, contexts, &config, soft.clone());

        let streamer = Streamer::new(
            store.clone(),
            context_reader.clone(),
            clock.clone(),
            StreamerSettings::default(),
            soft.clone(),
        );
        let argon2 = &config.preauth_keys.argon2;
        let cost = HashCost::new(argon2.memory_kib, argon2.iterations)?;
        let verifier = Arc::new(Verifier::new(cost)?);
        let attempts = Arc::new(Attempts::new());
        let slots = Slots::new(config.limits.connections_max, config.limits.connections_per_ip_max);
        let (connections, channels) = (TaskTracker::new(), TaskTracker::new());
        let handshakes = config.limits.handshakes_concurrent_max.unwrap_or_else(default_handshakes);
        let app = App::new(Parts {
            store: store.clone(),
            streamer,
            contexts: context_reader,
            verifier: verifier.clone(),
            attempts: attempts.clone(),
            responder: Responder::new(&noise_key),
            noise_key: noise_key.public(),
            server_url: server_url.clone(),
            relay: relay.relay,
            database: database.clone(),
            bodies: BodyLimits {
                register: config.limits.register_body_bytes_max,
                map: config.limits.map_body_bytes_max,
                api: config.limits.api_body_bytes_max,
            },
            handshakes: Arc::new(Semaphore::new(handshakes)),
            first_request_timeout: config.limits.handshake_timeout,
            slots: slots.clone(),
            clock: clock.clone(),
            stop: soft.clone(),
            channels: channels.clone(),
        });
        let admin = |access| {
            api::router(AppState {
                store: store.clone(),
                verifier: verifier.clone(),
                attempts: attempts.clone(),
                clock: clock.clone(),
                database: database.clone(),
                body_bytes_max: config.limits.api_body_bytes_max,
                access,
            })
        };
        let listening = |router| Listening {
            router,
            slots: slots.clone(),
            header_timeout: config.limits.header_timeout,
            tls_timeout: config.limits.handshake_timeout,
            trusted_proxies: config.trusted_proxies.clone().into(),
            stop: soft.clone(),
            connections: connections.clone(),
        };

        let public = bind(&config).await?;
        let local = bind_unix(&config)?;
        let public_routes = public_router(app).merge(admin(Access::ApiKeys));
        let has_tls = tls.is_some();
        connections.spawn(listening(public_routes).run_tcp(public, tls.map(TlsAcceptor::from)));
        connections.spawn(listening(admin(Access::Everybody)).run_unix(local));
        tracing::info!(
            server.url = server_url,
            server.listen = %config.listen_addr,
            server.tls = has_tls,
            version = env!("CARGO_PKG_VERSION"),
            "meshcontrol serves"
        );
        if store.snapshot().tailnet.node_count() == 0 {
            welcome::print(&server_url, data_dir)?;
        }
        let unix_socket = config.unix_socket.clone();
        Ok(Self { database, soft, hard, connections, channels, writer, unix_socket })
    }

    /// Stops accepting, ends streams and channels, writes what is left, and closes the database.
    async fn stop(self) {
        self.soft.cancel();
        self.connections.close();
        self.channels.close();
        let drained = async {
            self.connections.wait().await;
            self.channels.wait().await;
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
        }
        self.hard.cancel();
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the writer failed");
        }
        self.database.close().await;
        // The next start removes a socket that is left behind, so failing here costs nothing.
        let _ = std::fs::remove_file(&self.unix_socket);
    }
}

/// Handshakes that are computed at once: two for each core keep all of them busy.
fn default_handshakes() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
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
