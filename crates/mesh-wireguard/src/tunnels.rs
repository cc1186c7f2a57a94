//! The tunnels, and the way of a datagram to its own.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use foldhash::fast::RandomState;
use mesh_keys::{NodePrivate, NodePublic};
use thiserror::Error;

/// How often tunnels want to know that time has passed. The shortest timer of WireGuard that matters is 5 s.
pub const TICK: Duration = Duration::from_millis(250);

/// Longest packet inside a tunnel, in bytes.
pub const PACKET_BYTES_MAX: usize = (1 << 16) - OVERHEAD_BYTES;

/// What a datagram is longer than the packet in it: header and tag. Handshakes take up to 148 bytes.
const OVERHEAD_BYTES: usize = 32;

/// Longest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Handshakes a second before whoever wants one must show by a cookie that its address is its own. Each is looked at
/// twice, so that the limiter counts double.
const HANDSHAKES_PER_SECOND_MAX: u64 = 2 * 200;

/// The lowest byte of a receiver index tells a tunnel's sessions apart; the rest is the tunnel's slot.
const SESSION_BITS: u32 = 8;

/// What comes out of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<'b> {
    /// To be sent to a peer, whichever way leads to it.
    Datagram {
        /// The peer.
        peer: NodePublic,
        /// The whole datagram.
        bytes: &'b [u8],
    },
    /// An IP packet that a peer has sent. Whether it may is not looked into.
    Packet {
        /// The peer.
        peer: NodePublic,
        /// The whole packet, without padding.
        bytes: &'b [u8],
    },
    /// To be sent to where the datagram just taken came from: there are too many handshakes, and whoever wants one must
    /// show that it gets this.
    Cookie(&'b [u8]),
}

/// Why a datagram was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DatagramError {
    /// It is none of WireGuard, or longer than any.
    #[error("datagram is not WireGuard's")]
    Malformed,
    /// A handshake by a key that is no peer's.
    #[error("handshake of an unknown peer")]
    UnknownPeer,
    /// For a tunnel that is not there, or not there any more.
    #[error("datagram for no tunnel")]
    NoTunnel,
    /// There are too many handshakes, and this one shows no cookie. It was sent one, unless it came through a relay.
    #[error("too many handshakes")]
    UnderLoad,
    /// It does not stand up to the tunnel's keys, counters or timestamps.
    #[error("datagram refused by the tunnel")]
    Refused,
}

/// The tunnels of one node key.
pub struct Tunnels {
    private: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    slots: Vec<Option<Tunnel>>,
    free: Vec<u32>,
    by_key: HashMap<NodePublic, u32, RandomState>,
    /// Where boringtun writes what comes out.
    scratch: Box<[u8]>,
}

struct Tunnel {
    key: NodePublic,
    tunn: Box<Tunn>,
    /// The number of our initiation that was answered last, until it is answered again.
    answered: Option<u32>,
    /// Whether the next tick begins a handshake.
    begins_again: bool,
}

impl Tunnels {
    /// Without tunnels yet.
    pub fn new(private: &NodePrivate) -> Self {
        let private = StaticSecret::from(*private.expose_bytes());
        let public = PublicKey::from(&private);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND_MAX)),
            private,
            public,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            scratch: vec![0; DATAGRAM_BYTES_MAX].into(),
        }
    }

    /// Whether any tunnel is there that waits for ticks.
    pub fn is_active(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Sends a packet to a peer. `emit` is given the datagram, or a handshake first; then the packet waits for that.
    ///
    /// A packet longer than [`PACKET_BYTES_MAX`] is passed over.
    pub fn encapsulate(
        &mut self,
        peer: &NodePublic,
        packet: &[u8],
        mut emit: impl FnMut(Output<'_>),
    ) {
        if packet.len() > PACKET_BYTES_MAX {
            return;
        }
        let slot = self.slot_for(peer);
        if let Some(Tunnel { key, tunn, .. }) = self.slots[slot].as_mut() {
            // An error is that a new handshake is not due yet: the packet waits for the one under way.
            deliver(*key, tunn.encapsulate(packet, &mut self.scratch), &mut emit).ok();
        }
    }

    /// Takes a datagram that came `from` some address, or through a relay, and returns the peer that has proven to have
    /// sent it. `emit` is given the packet in it, and what is to be sent in answer.
    ///
    /// `is_peer` says of the key in a handshake whether it is a peer's.
    pub fn decapsulate(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        is_peer: impl FnOnce(&NodePublic) -> bool,
        mut emit: impl FnMut(Output<'_>),
    ) -> Result<NodePublic, DatagramError> {
        let slot = self.slot_of(from, datagram, is_peer, &mut emit)?;
        let tunnel = self.slots.get_mut(slot).and_then(Option::as_mut);
        let Tunnel { key, tunn, answered, begins_again } = tunnel.ok_or(DatagramError::NoTunnel)?;
        let result = tunn.decapsulate(from, datagram, &mut self.scratch);
        if let Some(initiation) = answered_initiation(datagram) {
            if matches!(result, TunnResult::WriteToNetwork(_)) {
                *answered = Some(initiation);
            } else if matches!(result, TunnResult::Err(WireGuardError::UnexpectedPacket))
                && answered.take_if(|answered| *answered == initiation).is_some()
            {
                // Two copies of it came by two ways, and both were answered. The peer goes by its last answer, so the session
                // of the first is none. Not at once: stock clients take no other initiation for 20 ms.
                *begins_again = true;
            }
        }
        deliver(*key, result, &mut emit)?;
        // What has waited for a session is sent, each call gives one. An answered initiation gives none yet: asked now, the
        // tunnel would begin a handshake of its own, and forget one that is under way.
        if matches!(datagram.first(), Some(2 | 4)) {
            while deliver(*key, tunn.decapsulate(None, &[], &mut self.scratch), &mut emit)?
                == Delivered::Datagram
            {}
        }
        Ok(*key)
    }

    /// Lets time pass: handshakes are sent again, keep-alives sent, tunnels forgotten that nothing has passed for long.
    pub fn handle_tick(&mut self, mut emit: impl FnMut(Output<'_>)) {
        self.limiter.reset_count();
        for slot in 0..self.slots.len() {
            let Some(Tunnel { key, tunn, begins_again, .. }) = self.slots[slot].as_mut() else {
                continue;
            };
            let key = *key;
            if std::mem::take(begins_again) {
                let initiation = tunn.format_handshake_initiation(&mut self.scratch, true);
                deliver(key, initiation, &mut emit).ok();
            }
            if deliver(key, tunn.update_timers(&mut self.scratch), &mut emit).is_err() {
                self.remove(&key);
            }
        }
    }

    /// Has the next tick begin a handshake with a peer, if there is a tunnel.
    pub fn renew(&mut self, peer: &NodePublic) {
        let slot = self.by_key.get(peer).map(|slot| *slot as usize);
        if let Some(tunnel) = slot.and_then(|slot| self.slots[slot].as_mut()) {
            tunnel.begins_again = true;
        }
    }

    /// Forgets a peer: what it still sends comes to nothing.
    pub fn remove(&mut self, peer: &NodePublic) {
        if let Some(slot) = self.by_key.remove(peer) {
            self.slots[slot as usize] = None;
            self.free.push(slot);
        }
    }

    /// How long ago the last handshake with a peer was; `None` without a session.
    pub fn since_handshake(&self, peer: &NodePublic) -> Option<Duration> {
        let slot = *self.by_key.get(peer)?;
        self.slots[slot as usize].as_ref()?.tunn.time_since_last_handshake()
    }

    /// The slot of the tunnel that a datagram is for: a first handshake says by whom it is, all else bears a number that
    /// we gave.
    fn slot_of(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        is_peer: impl FnOnce(&NodePublic) -> bool,
        emit: &mut impl FnMut(Output<'_>),
    ) -> Result<usize, DatagramError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::Malformed);
        }
        let index = match Tunn::parse_incoming_packet(datagram).map_err(|error| why(&error))? {
            Packet::HandshakeInit(_) => {
                let peer = self.initiator(from, datagram, emit)?;
                return if is_peer(&peer) {
                    Ok(self.slot_for(&peer))
                } else {
                    Err(DatagramError::UnknownPeer)
                };
            }
            Packet::HandshakeResponse(response) => response.receiver_idx,
            Packet::PacketCookieReply(reply) => reply.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        Ok((index >> SESSION_BITS) as usize)
    }

    /// Who wants a handshake. The limiter is asked first, for to find out takes a key agreement.
    fn initiator(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        emit: &mut impl FnMut(Output<'_>),
    ) -> Result<NodePublic, DatagramError> {
        // The limiter counts until it is told that a second is over, and without tunnels nobody ticks.
        self.limiter.reset_count();
        let initiation = match self.limiter.verify_packet(from, datagram, &mut self.scratch) {
            Ok(Packet::HandshakeInit(initiation)) => initiation,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                emit(Output::Cookie(cookie));
                return Err(DatagramError::UnderLoad);
            }
            Err(TunnResult::Err(error)) => return Err(why(&error)),
            Ok(_) | Err(_) => return Err(DatagramError::Malformed),
        };
        let half = parse_handshake_anon(&self.private, &self.public, &initiation)
            .map_err(|error| why(&error))?;
        Ok(NodePublic::from_bytes(half.peer_static_public))
    }

    /// The slot of a peer's tunnel, which is made if there is none.
    fn slot_for(&mut self, peer: &NodePublic) -> usize {
        if let Some(slot) = self.by_key.get(peer) {
            return *slot as usize;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            let last = u32::try_from(self.slots.len() - 1);
            last.expect("invariant: there are fewer peers than their keys take bytes")
        });
        let public = PublicKey::from(*peer.as_bytes());
        let limiter = Some(Arc::clone(&self.limiter));
        let tunn = Tunn::new(self.private.clone(), public, None, None, slot, limiter);
        self.slots[slot as usize] =
            Some(Tunnel { key: *peer, tunn: Box::new(tunn), answered: None, begins_again: false });
        self.by_key.insert(*peer, slot);
        slot as usize
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels").field("tunnels", &self.by_key.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    Nothing,
    Datagram,
    Packet,
}

/// The number of the initiation that a datagram answers, if it is an answer.
fn answered_initiation(datagram: &[u8]) -> Option<u32> {
    match Tunn::parse_incoming_packet(datagram).ok()? {
        Packet::HandshakeResponse(response) => Some(response.receiver_idx),
        Packet::HandshakeInit(_) | Packet::PacketCookieReply(_) | Packet::PacketData(_) => None,
    }
}

/// Hands on what a tunnel has given.
fn deliver(
    peer: NodePublic,
    result: TunnResult<'_>,
    emit: &mut impl FnMut(Output<'_>),
) -> Result<Delivered, DatagramError> {
    match result {
        TunnResult::Done => Ok(Delivered::Nothing),
        TunnResult::Err(error) => Err(why(&error)),
        TunnResult::WriteToNetwork(bytes) => {
            emit(Output::Datagram { peer, bytes });
            Ok(Delivered::Datagram)
        }
        TunnResult::WriteToTunnelV4(bytes, _) | TunnResult::WriteToTunnelV6(bytes, _) => {
            emit(Output::Packet { peer, bytes });
            Ok(Delivered::Packet)
        }
    }
}

fn why(error: &WireGuardError) -> DatagramError {
    match error {
        WireGuardError::InvalidPacket
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType => DatagramError::Malformed,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::ConnectionExpired => DatagramError::NoTunnel,
        WireGuardError::UnderLoad => DatagramError::UnderLoad,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag
        | WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::LockFailed => DatagramError::Refused,
    }
}

#[cfg(test)]
mod tests;
