//! One open map stream, and what all of them share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use mesh_model::{Clock, NodeId, SessionId};
use mesh_netmap::{MapContext, Told, full, full_again, peers_delta, tell};
use mesh_policy::ClassId;
use mesh_state::{Command, Snapshot};
use mesh_store::{Handle, Span};
use mesh_wire::{MapResponse, SessionRules};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Compression;
use crate::encode::Encoder;
use crate::frames::{Frame, FrameKey, Frames};
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
#[derive(Debug, Clone)]
struct Cursor {
    snapshot: Arc<Snapshot>,
    context: Arc<MapContext>,
}

/// Why a stream woke up.
#[derive(Debug)]
enum Wake {
    /// The server stops.
    Stop,
    /// There is something newer than the cursor, and its time has come.
    Change,
    /// Nothing was said for too long.
    Silence,
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
    /// Frames that are due, in order: those of one step.
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
    ///
    /// Nothing is lost if the future is dropped before it is done.
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
            let Some(cursor) = self.cursor.clone() else {
                self.tell_everything(None);
                continue;
            };
            match self.wait(&cursor).await {
                Wake::Stop => self.ended = true,
                Wake::Change => self.tell_changes(&cursor),
                Wake::Silence => {
                    self.frames.push_back(self.shared.encoder.keep_alive(self.compression));
                }
            }
        }
    }

    async fn wait(&mut self, cursor: &Cursor) -> Wake {
        let (epochs, contexts, pace) = (&mut self.epochs, &mut self.contexts, self.pace);
        let changed = async {
            let changed = tokio::select! {
                changed = epochs.wait_for(|newest| *newest > cursor.snapshot.epoch) => changed.is_ok(),
                changed = contexts.wait_for(|newest| !Arc::ptr_eq(newest, &cursor.context)) => {
                    changed.is_ok()
                }
            };
            sleep_until(pace.next_at(Instant::now())).await;
            // The senders live as long as the server; if they go, so does the stream.
            if changed { Wake::Change } else { Wake::Stop }
        };
        tokio::select! {
            // Rank: the end, changes, signs of life.
            biased;
            () = self.shared.stop.cancelled() => Wake::Stop,
            wake = changed => wake,
            () = sleep_until(self.keep_alive_at) => Wake::Silence,
        }
    }

    /// Tells everything, to a client that may hold what an earlier cursor told it.
    fn tell_everything(&mut self, earlier: Option<&Cursor>) {
        let context = self.contexts.borrow().clone();
        let (snapshot, now) = (self.shared.store.snapshot(), self.shared.clock.now());
        if self.has_lost_node(&snapshot) {
            self.ended = true;
            return;
        }
        let messages = match earlier {
            None => full(&snapshot, self.node, &context, now).map(|message| vec![message]),
            Some(earlier) => full_again(&earlier.snapshot, &snapshot, self.node, &context, now),
        };
        match messages {
            Some(messages) => {
                self.push_all(&messages);
                self.cursor = Some(Cursor { snapshot, context });
            }
            None => self.ended = true,
        }
    }

    fn tell_changes(&mut self, cursor: &Cursor) {
        let Some(span) = self.shared.store.since(cursor.snapshot.epoch) else {
            return self.tell_everything(Some(cursor));
        };
        if self.has_lost_node(&span.to) {
            self.ended = true;
            return;
        }
        let context = self.contexts.borrow().clone();
        if !Arc::ptr_eq(&context, &cursor.context) {
            return self.tell_everything(Some(cursor));
        }
        match tell(&span.from, &span.to, &span.changes, self.node, &context) {
            Told::Everything => return self.tell_everything(Some(cursor)),
            Told::Gone(last) => {
                self.push_all(last.as_deref());
                self.ended = true;
            }
            Told::Differences(differences) => {
                self.push_all(&differences.own);
                if let Some(class) = differences.shared {
                    self.push_shared(&span, class, &context);
                }
                self.push_all(differences.config.as_deref());
            }
        }
        self.cursor = Some(Cursor { snapshot: span.to, context });
    }

    /// Whether the node is held by another stream, or by none although its key is good. A node that has logged
    /// out is still told so.
    fn has_lost_node(&self, snapshot: &Snapshot) -> bool {
        snapshot.tailnet.node(self.node).is_some_and(|node| match node.session {
            Some(session) => session != self.session,
            None => !node.is_expired(snapshot.at),
        })
    }

    fn push_all<'a>(&mut self, messages: impl IntoIterator<Item = &'a MapResponse>) {
        for message in messages {
            self.assert_rules(message);
            self.frames.push_back(self.shared.encoder.encode(message, self.compression));
        }
    }

    fn push_shared(&mut self, span: &Span, class: ClassId, context: &Arc<MapContext>) {
        let compression = self.compression;
        let key = FrameKey { class, from: span.from.epoch, to: span.to.epoch, compression };
        let frames = self.shared.frames.get_or_make(key, context, || {
            peers_delta(&span.from, &span.to, &span.changes, self.node, context)
                .into_iter()
                .map(|message| Frame {
                    bytes: self.shared.encoder.encode(&message, compression),
                    message,
                })
                .collect()
        });
        for Frame { message, bytes } in &*frames {
            self.assert_rules(message);
            self.frames.push_back(bytes.clone());
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
            shared.store.submit_soft(Command::Disconnect { node, session });
        }
    });
}
