//! The sealed datagrams between two nodes, and how they are told from other datagrams.

use std::fmt;
use std::sync::LazyLock;

use crypto_box::aead::{Aead, AeadInPlace};
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use mesh_keys::{DiscoPrivate, DiscoPublic, KEY_BYTES};
use thiserror::Error;

use crate::Message;

/// Longest datagram that is opened, in bytes: as long as the longest ping with which clients probe a way.
///
/// Source: tailscale `net/tstun/mtu.go`, `WireMTUsToProbe`.
pub const DATAGRAM_BYTES_MAX: usize = 9000;

/// Bytes of a box's nonce.
pub const NONCE_BYTES: usize = 24;

/// Bytes of a datagram before its box: magic, sender's disco key, nonce.
pub const HEADER_BYTES: usize = MAGIC.len() + KEY_BYTES + NONCE_BYTES;

/// Bytes of a datagram around its message: header and the box's authenticator.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

const TAG_BYTES: usize = 16;

/// First bytes of every disco datagram: `TS` and a speech balloon in UTF-8. No WireGuard packet begins so.
const MAGIC: &[u8; 6] = b"TS\xf0\x9f\x92\xac";

/// The box that anybody can make: its key is the one that every private key agrees on with a point of low order.
static EVERYBODYS_BOX: LazyLock<SalsaBox> =
    LazyLock::new(|| make_box(&[1; KEY_BYTES], &DiscoPublic::default()));

/// Tells whether `datagram` looks like disco; if not, it is WireGuard's or STUN's.
pub fn is_disco(datagram: &[u8]) -> bool {
    split(datagram).is_some()
}

/// The disco key that `datagram` claims to come from; `None` if it does not look like disco.
///
/// A claim costs its sender nothing: only that of a known peer is worth the cryptography.
pub fn sender(datagram: &[u8]) -> Option<DiscoPublic> {
    Some(split(datagram)?.sender)
}

/// Seals and opens what one node and one peer tell each other.
///
/// Making one costs two Curve25519 multiplications, using it none: it is made once for a peer's disco key and
/// kept.
pub struct Channel {
    own: DiscoPublic,
    peer: DiscoPublic,
    shared: SalsaBox,
}

/// Why a datagram tells nothing. It is to be ignored: anybody can send such datagrams, and newer peers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiscoError {
    /// It does not look like disco.
    #[error("not a disco datagram")]
    NotDisco,
    /// It has more than [`DATAGRAM_BYTES_MAX`] bytes, or its message is too long for that.
    #[error("disco datagram is too long")]
    TooLong,
    /// It claims another sender than the channel's peer.
    #[error("disco datagram of another sender")]
    Sender,
    /// Its box was not sealed between these two nodes, or was changed on the way.
    #[error("disco datagram does not open")]
    Seal,
    /// The message in it ends before all that its type has.
    #[error("disco message is too short")]
    Truncated,
    /// The message in it is of a type that is not known here: later clients and peer relays have more.
    #[error("disco message has unknown type {0:#04x}")]
    UnknownType(u8),
}

impl Channel {
    /// Agrees on a key with `peer`.
    ///
    /// `None` if `peer` is of low order, as the all-zero key is: with such a key anybody could seal and open.
    pub fn new(own: &DiscoPrivate, peer: &DiscoPublic) -> Option<Self> {
        let shared = make_box(own.expose_bytes(), peer);
        let nonce = [0; NONCE_BYTES].into();
        let tag = |by: &SalsaBox| by.encrypt_in_place_detached(&nonce, &[], &mut []).ok();
        let is_everybodys = tag(&shared) == tag(&EVERYBODYS_BOX);
        (!is_everybodys).then(|| Self { own: own.public(), peer: *peer, shared })
    }

    /// Appends `message` to `out` as a whole datagram, at most [`DATAGRAM_BYTES_MAX`] long.
    ///
    /// `nonce` must never seal two messages between the two nodes, whoever of them sends it: it is random.
    pub fn seal(&self, message: &Message, nonce: [u8; NONCE_BYTES], out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(self.own.as_bytes());
        out.extend_from_slice(&nonce);
        let tag_at = out.len();
        out.extend_from_slice(&[0; TAG_BYTES]);
        message.encode(out);
        let (tag, payload) = out[tag_at..].split_at_mut(TAG_BYTES);
        let sealed = self.shared.encrypt_in_place_detached(&nonce.into(), &[], payload);
        tag.copy_from_slice(
            &sealed.expect("invariant: a box without associated data can be sealed"),
        );
    }

    /// Opens a datagram that the peer sealed.
    ///
    /// A box has one key for both ways, so that whoever sees our datagram can write the peer's key over ours
    /// and send it back to us: it opens. Such a ping bears our own node key, and has to be left unanswered.
    pub fn open(&self, datagram: &[u8]) -> Result<Message, DiscoError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DiscoError::TooLong);
        }
        let Parts { sender, nonce, sealed } = split(datagram).ok_or(DiscoError::NotDisco)?;
        if sender != self.peer {
            return Err(DiscoError::Sender);
        }
        let payload = self.shared.decrypt(&nonce.into(), sealed).map_err(|_| DiscoError::Seal)?;
        Message::parse(&payload)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What a datagram is made of, behind its magic.
struct Parts<'d> {
    sender: DiscoPublic,
    nonce: [u8; NONCE_BYTES],
    sealed: &'d [u8],
}

fn split(datagram: &[u8]) -> Option<Parts<'_>> {
    let rest = datagram.strip_prefix(MAGIC)?;
    let (&sender, rest) = rest.split_first_chunk()?;
    let (&nonce, sealed) = rest.split_first_chunk()?;
    Some(Parts { sender: DiscoPublic::from_bytes(sender), nonce, sealed })
}

fn make_box(private: &[u8; KEY_BYTES], public: &DiscoPublic) -> SalsaBox {
    SalsaBox::new(&PublicKey::from_bytes(*public.as_bytes()), &SecretKey::from_bytes(*private))
}

#[cfg(test)]
mod tests;
