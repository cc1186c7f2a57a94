//! Pings that programs ask for, and what comes back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_disco::TransactionId;
use mesh_path::Way;
use mesh_peers::PeerIndex;
use mesh_wire::DerpRegionId;

use super::tsmp;

/// How long an answer is waited for.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Most pings whose answers are waited for; the oldest go first.
const WAITING_MAX: usize = 256;

/// The answer to a ping.
///
/// ```
/// use mesh_node::Pong;
///
/// fn told(pong: &Pong) -> String {
///     let way = match (pong.direct, pong.relay) {
///         (Some(address), _) => format!("directly from {address}"),
///         (None, Some(region)) => format!("through relay {region}"),
///         (None, None) => "some way".to_owned(),
///     };
///     format!("pong after {:?}, {way}", pong.latency)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The round trip.
    pub latency: Duration,
    /// The peer's address, if the answer came directly.
    pub direct: Option<SocketAddr>,
    /// The region through whose relay it came, otherwise.
    pub relay: Option<DerpRegionId>,
}

/// Which ping of which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PingId(u64);

/// Pings that are under way.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    last: u64,
    disco: HashMap<TransactionId, Asked>,
    tsmp: HashMap<tsmp::Cookie, Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    id: PingId,
    peer: PeerIndex,
    at: Instant,
}

impl Pings {
    pub(crate) fn begin(&mut self) -> PingId {
        self.last += 1;
        PingId(self.last)
    }

    pub(crate) fn note_disco(
        &mut self,
        transaction: TransactionId,
        id: PingId,
        peer: PeerIndex,
        now: Instant,
    ) {
        note(&mut self.disco, transaction, Asked { id, peer, at: now });
    }

    pub(crate) fn note_tsmp(
        &mut self,
        cookie: tsmp::Cookie,
        id: PingId,
        peer: PeerIndex,
        now: Instant,
    ) {
        note(&mut self.tsmp, cookie, Asked { id, peer, at: now });
    }

    /// Takes a disco pong of a peer, which came some way.
    pub(crate) fn handle_disco(
        &mut self,
        transaction: TransactionId,
        peer: PeerIndex,
        way: Way,
        now: Instant,
    ) -> Option<(PingId, Pong)> {
        answered(&mut self.disco, &transaction, peer, way, now)
    }

    /// Takes a TSMP pong of a peer, to which data goes some way.
    pub(crate) fn handle_tsmp(
        &mut self,
        cookie: tsmp::Cookie,
        peer: PeerIndex,
        way: Way,
        now: Instant,
    ) -> Option<(PingId, Pong)> {
        answered(&mut self.tsmp, &cookie, peer, way, now)
    }
}

fn note<K: std::hash::Hash + Eq + Copy>(waiting: &mut HashMap<K, Asked>, key: K, asked: Asked) {
    waiting.retain(|_, other| asked.at.saturating_duration_since(other.at) < ANSWER_MAX);
    if waiting.len() >= WAITING_MAX
        && let Some(oldest) = waiting.iter().min_by_key(|(_, other)| other.at).map(|(key, _)| *key)
    {
        waiting.remove(&oldest);
    }
    waiting.insert(key, asked);
}

fn answered<K: std::hash::Hash + Eq>(
    waiting: &mut HashMap<K, Asked>,
    key: &K,
    peer: PeerIndex,
    way: Way,
    now: Instant,
) -> Option<(PingId, Pong)> {
    if waiting.get(key)?.peer != peer {
        return None;
    }
    let Asked { id, at, .. } = waiting.remove(key)?;
    let (direct, relay) = match way {
        Way::Udp(address) => (Some(address), None),
        Way::Relay(region) => (None, Some(region)),
    };
    Some((id, Pong { latency: now.saturating_duration_since(at), direct, relay }))
}
