//! One open map stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use mesh_model::{NodeId, SessionId};
use mesh_netmap::{Differences, Told, full_own, full_shared, visible_peers, withdrawal};
use mesh_state::{Command, Snapshot};
use mesh_wire::{MapResponse, SessionRules};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::chunks::PeerList;
use crate::encode::{Message, fields};
use crate::flush::{Flush, Span};
use crate::metrics::{Close, Kind};
use crate::progress::Progress;
use crate::streamer::{Configs, Shared, StreamerSettings};
use crate::{Compression, rules};

/// Why a stream woke up.
#[derive(Debug)]
enum Wake {
    /// The server stops.
    Stop,
    /// There is something newer than the cursor.
    Flush,
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
    /// The epoch in which its session began: it is told of nothing earlier.
    opened_at: u64,
    /// Messages that are due, in order: those of one step.
    messages: VecDeque<Message>,
    spoke_at: Instant,
    /// Wakes when the silence may have been too long. Set anew only when it wakes.
    silence: Pin<Box<Sleep>>,
    ended: bool,
    rules: SessionRules,
    /// What the messages that are due are.
    kind: Kind,
    /// When the first of the changes was noticed that they tell of.
    changed_at: Option<Instant>,
    /// Whether a message was taken.
    has_begun: bool,
    progress: Arc<Progress>,
}

impl MapStream {
    pub(crate) fn open(
        shared: Arc<Shared>,
        node: NodeId,
        session: SessionId,
        compression: Compression,
    ) -> Self {
        let now = Instant::now();
        let progress = shared.open.add(node, session);
        shared.metrics.opened();
        let silence = Box::pin(sleep_until(now + keep_alive_period(&shared.settings, session)));
        Self {
            opened_at: shared.store.snapshot().epoch,
            shared,
            node,
            session,
            compression,
            messages: VecDeque::new(),
            spoke_at: now,
            silence,
            ended: false,
            rules: SessionRules::new(),
            kind: Kind::Full,
            changed_at: None,
            has_begun: false,
            progress,
        }
    }

    /// The stream as the body of a response.
    pub fn into_body(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        let begun = (self, VecDeque::new());
        futures_util::stream::unfold(begun, |(mut stream, mut pieces)| async move {
            if pieces.is_empty() {
                pieces.extend(stream.next().await?.iter().cloned());
            }
            let piece = pieces.pop_front()?;
            Some((Ok(piece), (stream, pieces)))
        })
    }

    /// The next message, as soon as there is something to tell; `None` when the stream is over.
    ///
    /// Nothing is lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.spoke_at = Instant::now();
                self.measure(&message);
                rules::check(&mut self.rules, &message, self.compression);
                return Some(message);
            }
            if self.ended {
                return None;
            }
            match self.wait().await {
                Wake::Stop => self.ended = true,
                Wake::Flush => self.catch_up(),
                Wake::Silence => {
                    self.kind = Kind::KeepAlive;
                    self.messages.push_back(self.shared.encoder.keep_alive(self.compression));
                }
            }
        }
    }

    /// Measures a message that leaves now.
    fn measure(&mut self, message: &Message) {
        let metrics = &self.shared.metrics;
        let bytes = message.iter().map(|piece| piece.len() as u64).sum();
        metrics.sent(self.kind, message, bytes);
        self.progress.sent(bytes);
        if !self.has_begun {
            self.has_begun = true;
            metrics.started(self.progress.opened_at, self.spoke_at);
        }
        if self.messages.is_empty()
            && let Some(changed_at) = self.changed_at.take()
        {
            metrics.delivered(changed_at, self.spoke_at);
        }
    }

    async fn wait(&mut self) -> Wake {
        let period = keep_alive_period(&self.shared.settings, self.session);
        let (silence, spoke_at) = (&mut self.silence, self.spoke_at);
        let silent = async {
            loop {
                silence.as_mut().await;
                if spoke_at + period <= Instant::now() {
                    return;
                }
                silence.as_mut().reset(spoke_at + period);
            }
        };
        tokio::select! {
            // Rank: the end, changes, signs of life.
            biased;
            () = self.shared.stop.cancelled() => Wake::Stop,
            () = self.progress.news() => Wake::Flush,
            () = silent => Wake::Silence,
        }
    }

    /// Tells what is between the cursor and the newest flush.
    fn catch_up(&mut self) {
        let Some(cursor) = self.progress.cursor() else {
            let newest = self.shared.flushes.newest();
            if newest.snapshot.epoch >= self.opened_at {
                self.tell_everything(newest, None);
            }
            return;
        };
        let (newest, span) = self.shared.flushes.since(&cursor);
        if newest.number == cursor.number {
            return;
        }
        match span.filter(|_| Arc::ptr_eq(&newest.context, &cursor.context)) {
            Some(span) => self.tell_changes(&newest, &cursor, &span),
            None => self.tell_everything(newest, Some(&cursor)),
        }
    }

    /// Tells everything, to a client that may hold what it was told earlier.
    fn tell_everything(&mut self, flush: Arc<Flush>, earlier: Option<&Flush>) {
        let since = Instant::now();
        self.kind = Kind::Full;
        if self.has_lost_node(&flush.snapshot) {
            self.ended = true;
            return;
        }
        let withdrawn = match earlier {
            None => Some(mesh_netmap::Withdrawal::default()),
            Some(earlier) => withdrawal(&earlier.snapshot, &flush.snapshot, self.node),
        };
        let Some(withdrawn) = withdrawn else {
            self.ended = true;
            return;
        };
        if !withdrawn.peers.is_empty() {
            self.push(&MapResponse { peers_removed: withdrawn.peers, ..MapResponse::default() });
        }
        match self.shared.full(&flush, self.node, withdrawn.ssh_policy, self.compression) {
            Some(message) => {
                self.messages.push_back(message);
                self.progress.stand_at(flush);
                self.shared.metrics.built(Kind::Full, since.elapsed());
            }
            None => self.ended = true,
        }
    }

    fn tell_changes(&mut self, newest: &Arc<Flush>, cursor: &Flush, span: &Span) {
        let since = Instant::now();
        self.kind = Kind::Delta;
        self.shared.metrics.coalesced(newest.number - cursor.number - 1);
        let step = span.step();
        let changes = step.changes;
        let is_touched =
            [&changes.nodes, &changes.taken_over].iter().any(|set| set.contains(self.node.0));
        if is_touched && self.has_lost_node(&newest.snapshot) {
            self.ended = true;
            return;
        }
        match step.tell(self.node) {
            Told::Everything => return self.tell_everything(newest.clone(), Some(cursor)),
            Told::Gone(last) => {
                if let Some(last) = last {
                    self.push(&last);
                }
                self.ended = true;
            }
            Told::Differences(Differences { filters, peers, config }) => {
                let workshop = self.shared.workshop(newest, self.compression);
                let messages = match peers {
                    None => workshop.filters(filters).into_iter().collect(),
                    Some(group) => {
                        span.frames(group, self.node).messages(self.node, filters, workshop)
                    }
                };
                self.messages.extend(messages);
                if let Some(config) = config {
                    self.push(&config);
                }
                let time = since.elapsed();
                self.shared.flushes.add_effort(time);
                if !self.messages.is_empty() {
                    self.changed_at = Some(span.changed_at);
                    self.shared.metrics.built(Kind::Delta, time);
                }
            }
        }
        self.progress.stand_at(newest.clone());
    }

    /// Whether the node is held by another stream, or by none although its key is good. A node that has logged
    /// out is still told so.
    fn has_lost_node(&self, snapshot: &Snapshot) -> bool {
        snapshot.tailnet.node(self.node).is_some_and(|node| match node.session {
            Some(session) => session != self.session,
            None => !node.is_expired(snapshot.at),
        })
    }

    fn push(&mut self, message: &MapResponse) {
        self.messages.push_back(self.shared.encoder.encode(message, self.compression));
    }
}

impl Shared {
    /// The whole netmap of a node; `None` if there is no such node. `ssh_policy` stands in for none.
    fn full(
        &self,
        flush: &Flush,
        viewer: NodeId,
        ssh_policy: Option<mesh_wire::SshPolicy>,
        compression: Compression,
    ) -> Option<Message> {
        let (snapshot, encoder) = (&flush.snapshot, &self.encoder);
        let node = snapshot.tailnet.node(viewer)?;
        let peers = visible_peers(snapshot, node);
        let PeerList { pieces, owners } =
            self.chunks.list(flush, viewer, &peers, encoder, compression);
        let mut own = full_own(snapshot, node, owners, &flush.context, self.clock.now());
        own.ssh_policy = own.ssh_policy.or(ssh_policy);
        let begin = encoder.piece(&format!("{{{},", fields(&own)), compression);
        let config = self.config(flush, pieces.is_empty(), compression);
        let end = (!pieces.is_empty()).then(|| encoder.piece("]}", compression));
        let begin = [begin, config].concat().into();
        let pieces = [begin].into_iter().chain(pieces).chain(end);
        Some(encoder.message(pieces.collect(), compression))
    }

    /// What follows a viewer's own part of a full map, up to the list of its peers or the end.
    fn config(&self, flush: &Flush, is_end: bool, compression: Compression) -> Bytes {
        let key = (is_end, compression);
        let mut kept = self.configs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !Arc::ptr_eq(&kept.context, &flush.context) {
            *kept = Configs { context: flush.context.clone(), pieces: Vec::new() };
        }
        if let Some((_, piece)) = kept.pieces.iter().find(|(known, _)| *known == key) {
            return piece.clone();
        }
        let end = if is_end { "}" } else { ",\"Peers\":[" };
        let text = format!("{}{end}", fields(&full_shared(&flush.context)));
        let piece = self.encoder.piece(&text, compression);
        kept.pieces.push((key, piece.clone()));
        piece
    }
}

/// How long a session may be silent. Sessions count up by one; a prime step spreads them evenly over 64 places.
fn keep_alive_period(settings: &StreamerSettings, session: SessionId) -> std::time::Duration {
    let place = (session.0 % 64 * 37 % 64) as u32;
    settings.keep_alive + settings.keep_alive_jitter * place / 64
}

impl Drop for MapStream {
    fn drop(&mut self) {
        self.shared.open.remove(self.session);
        self.shared.metrics.closed(match self.ended {
            _ if self.shared.stop.is_cancelled() => Close::Drain,
            true => Close::Ended,
            false => Close::Client,
        });
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
