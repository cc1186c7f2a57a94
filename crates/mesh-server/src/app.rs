//! What every handler needs: the store, the streams, the keys, and how the server is known outside.

use std::sync::Arc;

use mesh_keys::MachinePublic;
use mesh_model::Clock;
use mesh_netmap::MapContext;
use mesh_noise::Responder;
use mesh_noise_io::http2::Timeouts;
use mesh_relay::Relay;
use mesh_store::Handle;
use mesh_streamer::Streamer;
use tokio::sync::watch;

use crate::api::Ping;
use crate::limits::{BodyLimits, Slots};
use crate::metrics::Metrics;
use crate::secrets::{Attempts, Verifier};

/// The server, as its handlers see it. Clones share all.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The node store.
    pub store: Handle,
    /// Open map streams.
    pub streamer: Streamer,
    /// Relays and DNS, as clients are told.
    pub contexts: watch::Receiver<Arc<MapContext>>,
    /// Verifies preauth and API keys.
    pub verifier: Arc<Verifier>,
    /// Who presented too many wrong keys.
    pub attempts: Arc<Attempts>,
    /// Our half of the handshake.
    pub responder: Responder,
    /// The public half of our Noise key.
    pub noise_key: MachinePublic,
    /// The URL that clients know us by, without a slash at its end.
    pub server_url: String,
    /// The relay, if there is one. Clients are sent to the door that the DERP map names.
    pub relay: Option<Relay>,
    /// The database behind the store.
    pub database: Arc<dyn Ping>,
    /// Largest request bodies.
    pub bodies: BodyLimits,
    /// Handshakes that may be computed at once.
    pub handshakes: Arc<tokio::sync::Semaphore>,
    /// How long channels wait for their clients.
    pub timeouts: Timeouts,
    /// Connections that nobody has claimed yet.
    pub slots: Slots,
    /// Measurements of the front door.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ends channels and streams.
    pub stop: tokio_util::sync::CancellationToken,
    /// Channels that have left their HTTP connection.
    pub channels: tokio_util::task::TaskTracker,
}

impl App {
    /// An app of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("server_url", &self.server_url).finish_non_exhaustive()
    }
}
