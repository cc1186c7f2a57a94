//! What all map streams share, and how they are opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mesh_model::{Clock, NodeId, SessionId};
use mesh_netmap::{MapContext, full};
use mesh_store::Handle;
use mesh_wire::MapResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::beat::Beat;
use crate::chunks::Chunks;
use crate::encode::{Encoder, Message};
use crate::flush::{Flush, Flushes};
use crate::group::Workshop;
use crate::metrics::Metrics;
use crate::progress::OpenStreams;
use crate::{Compression, MapStream, StreamStatus};

/// Times that an operator or a test may want otherwise.
#[derive(Debug, Clone, Copy)]
pub struct StreamerSettings {
    /// How long a node counts as online after its stream ended: a client that comes back in this time was
    /// never away for its peers.
    pub offline_grace: Duration,
    /// Silence after which a keep-alive is sent. Clients give up after 120 s.
    pub keep_alive: Duration,
    /// Spread added to `keep_alive`, so that streams that opened together do not beat together.
    pub keep_alive_jitter: Duration,
}

impl Default for StreamerSettings {
    fn default() -> Self {
        Self {
            offline_grace: Duration::from_secs(10),
            keep_alive: Duration::from_secs(50),
            keep_alive_jitter: Duration::from_secs(9),
        }
    }
}

/// Opens map streams.
#[derive(Debug, Clone)]
pub struct Streamer(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Handle,
    pub(crate) flushes: Arc<Flushes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: StreamerSettings,
    pub(crate) stop: CancellationToken,
    pub(crate) encoder: Encoder,
    pub(crate) chunks: Chunks,
    pub(crate) configs: Mutex<Configs>,
    pub(crate) open: Arc<OpenStreams>,
    pub(crate) metrics: Metrics,
    _beat: AbortOnDropHandle<()>,
}

/// Pieces of full maps that depend on the context alone.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) context: Arc<MapContext>,
    pub(crate) pieces: Vec<((bool, Compression), Bytes)>,
}

impl Streamer {
    /// Streams from a store; they end when `stop` is cancelled. Spawns the task that paces them.
    pub fn new(
        store: Handle,
        contexts: watch::Receiver<Arc<MapContext>>,
        clock: Arc<dyn Clock>,
        settings: StreamerSettings,
        stop: CancellationToken,
    ) -> Self {
        Self::measured(store, contexts, clock, settings, stop, Metrics::default())
    }

    /// The same, measuring into `metrics`.
    pub fn measured(
        store: Handle,
        contexts: watch::Receiver<Arc<MapContext>>,
        clock: Arc<dyn Clock>,
        settings: StreamerSettings,
        stop: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        let open = Arc::<OpenStreams>::default();
        let beat = Beat::new(store.clone(), contexts, open.clone(), metrics.clone());
        let flushes = beat.flushes();
        let configs = Configs { context: flushes.newest().context.clone(), pieces: Vec::new() };
        Self(Arc::new(Shared {
            store,
            flushes,
            clock,
            settings,
            encoder: Encoder::new(metrics.clone()),
            chunks: Chunks::default(),
            configs: Mutex::new(configs),
            open,
            metrics,
            _beat: AbortOnDropHandle::new(tokio::spawn(beat.run(stop.clone()))),
            stop,
        }))
    }

    /// Opens the stream of a node that the store has just connected under `session`.
    pub fn open(&self, node: NodeId, session: SessionId, compression: Compression) -> MapStream {
        MapStream::open(self.0.clone(), node, session, compression)
    }

    /// Where all open streams are, in no order.
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.0.open.status(self.0.flushes.newest().number)
    }

    /// A single message with everything, for a request that is no stream; `None` without such a node.
    pub fn once(&self, node: NodeId, compression: Compression) -> Option<Message> {
        let snapshot = self.0.store.snapshot();
        let context = self.0.flushes.newest().context.clone();
        let message = full(&snapshot, node, &context, self.0.clock.now())?;
        Some(self.0.encoder.encode(&message, compression))
    }

    /// Any message, for a client without a node.
    pub fn encode(&self, message: &MapResponse, compression: Compression) -> Message {
        self.0.encoder.encode(message, compression)
    }
}

impl Shared {
    /// What it takes to encode changes up to a flush.
    pub(crate) fn workshop<'a>(
        &'a self,
        flush: &'a Flush,
        compression: Compression,
    ) -> Workshop<'a> {
        Workshop {
            encoder: &self.encoder,
            texts: &self.chunks.texts,
            snapshot: &flush.snapshot,
            context: &flush.context,
            compression,
        }
    }
}
