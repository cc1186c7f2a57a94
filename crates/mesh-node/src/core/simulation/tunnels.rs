//! WireGuard as far as paths can tell: handshakes, sessions and their timers, without secrets, by the clock that it is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_keys::{NodePrivate, NodePublic};
use mesh_wireguard::{DatagramError, Output};

use super::super::tunnel::WireGuard;

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 4;

/// Type and reserved bytes, the sender's key, the session.
const HEADER_BYTES: usize = 4 + 32 + 8;

/// Source of the timers: the `WireGuard` paper, section 6.1.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions that take data: the next, the current and the one before.
const SESSIONS_MAX: usize = 3;

/// Packets that wait for a handshake.
const WAITING_MAX: usize = 32;

/// The tunnels of one node.
#[derive(Debug)]
pub(crate) struct Tunnels {
    own: NodePublic,
    peers: BTreeMap<NodePublic, Tunnel>,
    sessions: u64,
}

#[derive(Debug, Default)]
struct Tunnel {
    /// Sessions that still take data, the newest last: that one is sent in.
    sessions: Vec<u64>,
    handshake: Option<Handshake>,
    waiting: Vec<Vec<u8>>,
    /// When data was sent that nothing has come back for.
    unheard_since: Option<Instant>,
    /// When data came that nothing was sent after.
    unanswered_since: Option<Instant>,
    is_to_renew: bool,
}

impl Tunnel {
    /// Both ends may begin at once: then there are two sessions, and each end sends in another.
    fn begin(&mut self, session: u64) {
        self.sessions.push(session);
        let surplus = self.sessions.len().saturating_sub(SESSIONS_MAX);
        self.sessions.drain(..surplus);
    }
}

#[derive(Debug)]
struct Handshake {
    session: u64,
    begun_at: Instant,
    sent_at: Instant,
}

impl Tunnels {
    fn datagram(&self, kind: u8, session: u64, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0], &self.own.as_bytes()[..], &session.to_be_bytes(), payload].concat()
    }

    fn initiate(&mut self, peer: NodePublic, now: Instant, emit: &mut impl FnMut(Output<'_>)) {
        let tunnel = self.peers.entry(peer).or_default();
        let begun_at = tunnel.handshake.as_ref().map_or(now, |handshake| handshake.begun_at);
        self.sessions += 1;
        let session = self.sessions;
        tunnel.handshake = Some(Handshake { session, begun_at, sent_at: now });
        emit(Output::Datagram { peer, bytes: &self.datagram(INITIATION, session, &[]) });
    }

    fn send(
        &mut self,
        peer: NodePublic,
        payload: &[u8],
        now: Instant,
        emit: &mut impl FnMut(Output<'_>),
    ) {
        let Some(tunnel) = self.peers.get_mut(&peer) else { return };
        let Some(session) = tunnel.sessions.last().copied() else { return };
        tunnel.unanswered_since = None;
        if !payload.is_empty() {
            tunnel.unheard_since.get_or_insert(now);
        }
        emit(Output::Datagram { peer, bytes: &self.datagram(DATA, session, payload) });
    }

    fn flush(&mut self, peer: NodePublic, now: Instant, emit: &mut impl FnMut(Output<'_>)) {
        let waiting = self.peers.get_mut(&peer).map(|tunnel| std::mem::take(&mut tunnel.waiting));
        for packet in waiting.into_iter().flatten() {
            self.send(peer, &packet, now, emit);
        }
    }
}

impl WireGuard for Tunnels {
    fn new(private: &NodePrivate) -> Self {
        let own = private.public();
        let [first, ..] = *own.as_bytes();
        // No two nodes give the same numbers.
        Self { own, peers: BTreeMap::new(), sessions: u64::from(first) << 56 }
    }

    fn is_active(&self) -> bool {
        !self.peers.is_empty()
    }

    fn encapsulate(
        &mut self,
        peer: &NodePublic,
        packet: &[u8],
        now: Instant,
        mut emit: impl FnMut(Output<'_>),
    ) {
        let tunnel = self.peers.entry(*peer).or_default();
        if !tunnel.sessions.is_empty() {
            return self.send(*peer, packet, now, &mut emit);
        }
        tunnel.waiting.truncate(WAITING_MAX - 1);
        tunnel.waiting.push(packet.to_vec());
        if tunnel.handshake.is_none() {
            self.initiate(*peer, now, &mut emit);
        }
    }

    fn decapsulate(
        &mut self,
        _from: Option<IpAddr>,
        datagram: &[u8],
        now: Instant,
        is_peer: impl FnOnce(&NodePublic) -> bool,
        mut emit: impl FnMut(Output<'_>),
    ) -> Result<NodePublic, DatagramError> {
        let (header, payload) =
            datagram.split_at_checked(HEADER_BYTES).ok_or(DatagramError::Malformed)?;
        let key: [u8; 32] = header[4..36].try_into().expect("32 bytes");
        let session = u64::from_be_bytes(header[36..].try_into().expect("8 bytes"));
        let peer = NodePublic::from_bytes(key);
        if header[0] == INITIATION {
            if !is_peer(&peer) {
                return Err(DatagramError::UnknownPeer);
            }
            self.peers.entry(peer).or_default().begin(session);
            emit(Output::Datagram { peer, bytes: &self.datagram(RESPONSE, session, &[]) });
            self.flush(peer, now, &mut emit);
            return Ok(peer);
        }
        let tunnel = self.peers.get_mut(&peer).ok_or(DatagramError::NoTunnel)?;
        match header[0] {
            RESPONSE if tunnel.handshake.as_ref().is_some_and(|it| it.session == session) => {
                tunnel.handshake = None;
                tunnel.begin(session);
                tunnel.unheard_since = None;
                self.flush(peer, now, &mut emit);
                // As boringtun has it: so the other end knows that the session stands.
                self.send(peer, &[], now, &mut emit);
                Ok(peer)
            }
            DATA if tunnel.sessions.contains(&session) => {
                tunnel.unheard_since = None;
                if !payload.is_empty() {
                    tunnel.unanswered_since.get_or_insert(now);
                    emit(Output::Packet { peer, bytes: payload });
                }
                Ok(peer)
            }
            _ => Err(DatagramError::NoTunnel),
        }
    }

    fn handle_tick(&mut self, now: Instant, mut emit: impl FnMut(Output<'_>)) {
        let peers: Vec<NodePublic> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(tunnel) = self.peers.get_mut(&peer) else { continue };
            let is_over = |at: Option<Instant>, span| at.is_some_and(|at| now >= at + span);
            let handshake = tunnel.handshake.as_ref();
            if is_over(handshake.map(|it| it.begun_at), REKEY_ATTEMPT_TIME) {
                *tunnel = Tunnel::default();
            } else if std::mem::take(&mut tunnel.is_to_renew)
                || is_over(handshake.map(|it| it.sent_at), REKEY_TIMEOUT)
                || handshake.is_none()
                    && is_over(tunnel.unheard_since, KEEPALIVE_TIMEOUT + REKEY_TIMEOUT)
            {
                self.initiate(peer, now, &mut emit);
            } else if is_over(tunnel.unanswered_since, KEEPALIVE_TIMEOUT) {
                self.send(peer, &[], now, &mut emit);
            }
        }
    }

    fn renew(&mut self, peer: &NodePublic) {
        if let Some(tunnel) = self.peers.get_mut(peer) {
            tunnel.is_to_renew = true;
        }
    }

    fn remove(&mut self, peer: &NodePublic) {
        self.peers.remove(peer);
    }

    fn since_handshake(&self, _peer: &NodePublic) -> Option<Duration> {
        None
    }
}
