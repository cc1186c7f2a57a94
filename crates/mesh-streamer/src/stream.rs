//! One open map stream, and what all of them share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use mesh_model::{Clock, NodeId, SessionId};
use mesh_netmap::{MapContext, Told, full, peers_delta, tell};
use mesh_policy::ClassId;
use mesh_state::{Command, Snapshot};
use mesh_store::{Handle, Span};
use mesh_wire::{MapResponse, SessionRules};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Compression;
use crate::encode::Encoder;
use crate::frames::{CachedFrame, FrameKey, Frames};
use crate::pace::Pace;

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
struct Shared {
    store: Handle,
    contexts: watch::Receiver<Arc<MapContext>>,
    clock: Arc<dyn Clock>,
    settings: StreamerSettings,
    stop: CancellationToken,
    encoder: Encoder,
    frames: Frames,
}

impl Streamer {
    /// Streams from a store; they end when `stop` is cancelled.
    pub fn new(
        store: Handle,
        contexts: watch::Receiver<Arc<MapContext>>,
        clock: Arc<dyn Clock>,
        settings: StreamerSettings,
        stop: CancellationToken,
    ) -> Self {
        let (encoder, frames) = (Encoder::default(), Frames::default());
        Self(Arc::new(Shared { store, contexts, clock, settings, stop, encoder, frames }))
    }

    /// Opens the stream of a node that the store has just connected under `session`.
    pub fn open(&self, node: NodeId, session: SessionId, compression: Compression) -> MapStream {
        MapStream {
            shared: self.0.clone(),
            node,
            session,
            compression,
            epochs: self.0.store.subscribe(),
            contexts: self.0.contexts.clone(),
            cursor: None,
            pace: Pace::new(),
            keep_alive_at: Instant::now(),
            frames: VecDeque::new(),
            ended: false,
            rules: SessionRules::new(),
        }
    }

    /// A single frame with everything, for a request that is no stream; `None` without such a node.
    pub fn once(&self, node: NodeId, compression: Compression) -> Option<Bytes> {
        let snapshot = self.0.store.snapshot();
        let context = self.0.contexts.borrow().clone();
        let message = full(&snapshot, node, &context, self.0.clock.now())?;
        Some(self.0.encoder.encode(&message, compression))
    }

    /// A frame of any message, for a client without a node.
    pub fn encode(&self, message: &MapResponse, compression: Compression) -> Bytes {
        self.0.encoder.encode(message, compression)
    }
}

/// How far a stream has been told.
#[derive(Debug)]
struct Cursor {
    snapshot: Arc<Snapshot>,
    context: Arc<MapContext>,
}

/// One open map stream. Dropping it tells the store, after the grace period, that the node is gone.
#[derive(Debug)]
pub struct MapStream {
    shared: Arc<Shared>,
    node: NodeId,
    session: SessionId,
    compression: Compression,
    epochs: watch::Receiver<u64>,
    contexts: watch::Receiver<Arc<MapContext>>,
    cursor: Option<Cursor>,
    pace: Pace,
    keep_alive_at: Instant,
    /// Frames that are due, in order: at most the two of one step.
    frames: VecDeque<Bytes>,
    ended: bool,
    rules: SessionRules,
}

impl MapStream {
    /// The stream as the body of a response.
    pub fn into_body(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        futures_util::stream::unfold(self, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok(frame), stream))
        })
    }

    /// The next frame, as soon as there is something to tell; `None` when the stream is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                let now = Instant::now();
                self.pace.sent(now);
                self.keep_alive_at = now + self.keep_alive_period();
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match self.cursor.take() {
                None => self.tell_everything(None),
                Some(cursor) => self.wait_and_tell(cursor).await,
            }
        }
    }

    async fn wait_and_tell(&mut self, cursor: Cursor) {
        tokio::select! {
            // Rank: the end, changes, signs of life.
            biased;
            () = self.shared.stop.cancelled() => self.ended = true,
            // The senders live as long as the server; if they go, so does the stream.
            changed = async {
                tokio::select! {
                    changed = self.epochs.changed() => changed,
                    changed = self.contexts.changed() => changed,
                }
            } => match changed {
                Ok(()) => {
                    sleep_until(self.pace.next_at(Instant::now())).await;
                    self.tell_changes(&cursor);
                }
                Err(_) => self.ended = true,
            },
            () = sleep_until(self.keep_alive_at) => {
                self.frames.push_back(self.shared.encoder.keep_alive(self.compression));
                self.cursor = Some(cursor);
            }
        }
    }

    /// Tells everything, to a client that may hold what an earlier cursor told it.
    fn tell_everything(&mut self, earlier: Option<&Cursor>) {
        let snapshot = self.shared.store.snapshot();
        let context = self.contexts.borrow_and_update().clone();
        self.epochs.mark_unchanged();
        match full(&snapshot, self.node, &context, self.shared.clock.now()) {
            Some(message) => {
                if message.peers.is_empty() {
                    // To a client, no list of peers means that they are the same.
                    self.take_back_peers(earlier);
                }
                self.push(&message);
                self.cursor = Some(Cursor { snapshot, context });
            }
            None => self.ended = true,
        }
    }

    fn take_back_peers(&mut self, earlier: Option<&Cursor>) {
        let told = earlier.and_then(|Cursor { snapshot, context }| {
            full(snapshot, self.node, context, snapshot.at)
        });
        let peers_removed: Vec<_> =
            told.into_iter().flat_map(|told| told.peers).map(|peer| peer.id).collect();
        if !peers_removed.is_empty() {
            self.push(&MapResponse { peers_removed, ..MapResponse::default() });
        }
    }

    fn tell_changes(&mut self, cursor: &Cursor) {
        self.epochs.mark_unchanged();
        let context = self.contexts.borrow_and_update().clone();
        let Some(span) = self.shared.store.since(cursor.snapshot.epoch) else {
            return self.tell_everything(Some(cursor));
        };
        if self.is_superseded(&span.to) {
            self.ended = true;
            return;
        }
        if !Arc::ptr_eq(&context, &cursor.context) {
            return self.tell_everything(Some(cursor));
        }
        match tell(&span.from, &span.to, &span.changes, self.node, &context) {
            Told::Everything => return self.tell_everything(Some(cursor)),
            Told::Gone(last) => {
                if let Some(last) = last {
                    self.push(&last);
                }
                self.ended = true;
            }
            Told::Private(messages) => {
                for message in &messages {
                    self.push(message);
                }
            }
            Told::Shared(class) => self.push_shared(&span, class, &context),
        }
        self.cursor = Some(Cursor { snapshot: span.to, context });
    }

    /// Whether a newer stream of the same node has taken over.
    fn is_superseded(&self, snapshot: &Snapshot) -> bool {
        let node = snapshot.tailnet.node(self.node);
        node.and_then(|node| node.session).is_some_and(|session| session > self.session)
    }

    fn push(&mut self, message: &MapResponse) {
        self.assert_rules(message);
        self.frames.push_back(self.shared.encoder.encode(message, self.compression));
    }

    fn push_shared(&mut self, span: &Span, class: ClassId, context: &MapContext) {
        let compression = self.compression;
        let key = FrameKey { class, from: span.from.epoch, to: span.to.epoch, compression };
        let frame = self.shared.frames.get_or_make(key, || {
            let message =
                peers_delta(&span.from, &span.to, &span.changes, (class, class), None, context);
            let is_empty = message == MapResponse::default();
            let bytes = (!is_empty).then(|| self.shared.encoder.encode(&message, compression));
            CachedFrame { bytes, message: Arc::new(message) }
        });
        if let Some(bytes) = frame.bytes {
            self.assert_rules(&frame.message);
            self.frames.push_back(bytes);
        }
    }

    /// Debug builds check every message against what clients can take.
    fn assert_rules(&mut self, message: &MapResponse) {
        if cfg!(debug_assertions) {
            let broken = self.rules.apply(message).err();
            debug_assert_eq!(broken, None, "node {} would be misled by {message:?}", self.node);
        }
    }

    fn keep_alive_period(&self) -> Duration {
        let StreamerSettings { keep_alive, keep_alive_jitter, .. } = self.shared.settings;
        // Sessions count up by one; a prime step spreads them evenly over 64 places.
        let place = (self.session.0 % 64 * 37 % 64) as u32;
        keep_alive + keep_alive_jitter * place / 64
    }
}

impl Drop for MapStream {
    fn drop(&mut self) {
        spawn_departure(self.shared.clone(), self.node, self.session);
    }
}

/// Waits out the grace period of a stream that ended, then has its node marked offline unless another stream
/// has taken over meanwhile.
fn spawn_departure(shared: Arc<Shared>, node: NodeId, session: SessionId) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        sleep(shared.settings.offline_grace).await;
        let snapshot = shared.store.snapshot();
        if snapshot.tailnet.node(node).is_some_and(|node| node.session == Some(session)) {
            shared.store.submit_soft(Command::Disconnect { node, session }).await;
        }
    });
}
