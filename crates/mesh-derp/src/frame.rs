//! Frames: one byte of type, four bytes of payload length (big-endian), the payload.
//!
//! [`FrameReader`] cuts frames out of whatever bytes have arrived and gives them as [`ClientFrame`] (a
//! relay reads those) or [`ServerFrame`] (a client does), borrowed from the buffer. A length is judged
//! when the header is there, before its bytes are awaited.

use std::ops::RangeInclusive;

use mesh_keys::{KEY_BYTES, NodePublic};
use thiserror::Error;

use crate::packet::PACKET_BYTES_MAX;
use crate::peer_present::PeerPresent;

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 5;

/// Bytes that a ping carries and its pong repeats.
pub const PING_BYTES: usize = 8;

/// Longest ping, in bytes: room that the protocol leaves for later.
const PING_BYTES_MAX: usize = 1000;

/// Longest frame of an unknown type that is read and thrown away, in bytes: what the Go client takes for
/// the end of sense.
const SKIPPED_BYTES_MAX: usize = 1 << 20;

/// First bytes of a relay's greeting: `DERP` and a key in UTF-8.
const MAGIC: &[u8] = b"DERP\xf0\x9f\x94\x91";

/// Most bytes of a greeting: magic, key, and what later relays may append.
const SERVER_KEY_BYTES_MAX: usize = 1024;

/// Most bytes of a sealed server info. Ours has 54, the Go client stops at a megabyte.
const SERVER_INFO_BYTES_MAX: usize = 64 << 10;

/// Frame types as they stand in the header.
pub(crate) mod frame_type {
    pub(crate) const SERVER_KEY: u8 = 0x01;
    pub(crate) const CLIENT_INFO: u8 = 0x02;
    pub(crate) const SERVER_INFO: u8 = 0x03;
    pub(crate) const SEND_PACKET: u8 = 0x04;
    pub(crate) const RECV_PACKET: u8 = 0x05;
    pub(crate) const KEEP_ALIVE: u8 = 0x06;
    pub(crate) const NOTE_PREFERRED: u8 = 0x07;
    pub(crate) const PEER_GONE: u8 = 0x08;
    pub(crate) const PEER_PRESENT: u8 = 0x09;
    pub(crate) const FORWARD_PACKET: u8 = 0x0a;
    pub(crate) const WATCH_CONNS: u8 = 0x10;
    pub(crate) const CLOSE_PEER: u8 = 0x11;
    pub(crate) const PING: u8 = 0x12;
    pub(crate) const PONG: u8 = 0x13;
}

/// Why a stream of frames cannot be read on. The connection is of no use after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The header announces a payload that no frame of its type has.
    #[error("frame of type {frame_type:#04x} with {bytes} bytes")]
    Length {
        /// The type as it stands in the header.
        frame_type: u8,
        /// The length as it stands in the header, in bytes.
        bytes: usize,
    },
    /// A greeting that does not begin as a DERP relay's does.
    #[error("greeting is not that of a DERP relay")]
    Magic,
}

/// A frame from a client to a relay, after login. The last three are for clients with the mesh key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFrame<'b> {
    /// A packet to relay, at most [`PACKET_BYTES_MAX`] bytes.
    SendPacket {
        /// Who is to receive it.
        dst: NodePublic,
        /// The packet.
        payload: &'b [u8],
    },
    /// Whether this relay is the client's home.
    NotePreferred(bool),
    /// Asks for a pong with the same bytes.
    Ping([u8; PING_BYTES]),
    /// Answers a ping of the relay.
    Pong([u8; PING_BYTES]),
    /// A packet that a client of another relay sent to one of this relay, at most [`PACKET_BYTES_MAX`] bytes.
    ForwardPacket {
        /// Who sent it.
        src: NodePublic,
        /// Who is to receive it.
        dst: NodePublic,
        /// The packet.
        payload: &'b [u8],
    },
    /// Asks to be told which clients the relay has, and from then on who comes and goes.
    WatchConns,
    /// Asks for all connections of a client to be closed.
    ClosePeer(NodePublic),
}

impl<'b> ClientFrame<'b> {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// With a payload of four gigabytes or more.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::SendPacket { dst, payload } => {
                put_frame(out, frame_type::SEND_PACKET, &[dst.as_bytes(), payload]);
            }
            Self::NotePreferred(preferred) => {
                put_frame(out, frame_type::NOTE_PREFERRED, &[&[u8::from(*preferred)]]);
            }
            Self::Ping(data) => put_frame(out, frame_type::PING, &[data]),
            Self::Pong(data) => put_frame(out, frame_type::PONG, &[data]),
            Self::ForwardPacket { src, dst, payload } => {
                let parts = [src.as_bytes().as_slice(), dst.as_bytes(), payload];
                put_frame(out, frame_type::FORWARD_PACKET, &parts);
            }
            Self::WatchConns => put_frame(out, frame_type::WATCH_CONNS, &[]),
            Self::ClosePeer(key) => put_frame(out, frame_type::CLOSE_PEER, &[key.as_bytes()]),
        }
    }

    fn lengths(frame_type: u8) -> Option<RangeInclusive<usize>> {
        match frame_type {
            frame_type::SEND_PACKET => Some(KEY_BYTES..=KEY_BYTES + PACKET_BYTES_MAX),
            frame_type::NOTE_PREFERRED => Some(1..=1),
            frame_type::PING | frame_type::PONG => Some(PING_BYTES..=PING_BYTES_MAX),
            frame_type::FORWARD_PACKET => Some(2 * KEY_BYTES..=2 * KEY_BYTES + PACKET_BYTES_MAX),
            frame_type::WATCH_CONNS => Some(0..=0),
            frame_type::CLOSE_PEER => Some(KEY_BYTES..=KEY_BYTES),
            _ => None,
        }
    }

    fn parse(RawFrame { frame_type, payload }: RawFrame<'b>) -> Result<Self, FrameError> {
        match frame_type {
            frame_type::SEND_PACKET => {
                let (key, payload) = split_key(frame_type, payload)?;
                Ok(Self::SendPacket { dst: key, payload })
            }
            frame_type::NOTE_PREFERRED => Ok(Self::NotePreferred(payload != [0])),
            frame_type::PING => Ok(Self::Ping(*split(frame_type, payload)?.0)),
            frame_type::PONG => Ok(Self::Pong(*split(frame_type, payload)?.0)),
            frame_type::FORWARD_PACKET => {
                let (src, rest) = split_key(frame_type, payload)?;
                let (dst, payload) = split_key(frame_type, rest)?;
                Ok(Self::ForwardPacket { src, dst, payload })
            }
            frame_type::CLOSE_PEER => Ok(Self::ClosePeer(split_key(frame_type, payload)?.0)),
            _ => Ok(Self::WatchConns),
        }
    }
}

/// Why a peer is gone from a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerGoneReason {
    /// It was connected and has sent packets to this client, and is connected no more.
    Disconnected = 0,
    /// This client sent it a packet, and it is not connected.
    NotHere = 1,
}

/// A frame from a relay to a client.
///
/// Health and restarting frames are skipped: relays do not send them, and the strict Rust client gives up on
/// them. So it does on peer-present frames, which only those are sent that asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFrame<'b> {
    /// The greeting: whom to seal the login to.
    ServerKey(NodePublic),
    /// The end of the login: a nonce and a [`crate::ServerInfo`] sealed to the client.
    ServerInfo(&'b [u8]),
    /// A packet from a peer, at most [`PACKET_BYTES_MAX`] bytes.
    RecvPacket {
        /// Who sent it.
        src: NodePublic,
        /// The packet.
        payload: &'b [u8],
    },
    /// Nothing, so that the client knows the connection to be alive.
    KeepAlive,
    /// A peer cannot be reached through this relay.
    PeerGone {
        /// The peer.
        key: NodePublic,
        /// Why.
        reason: PeerGoneReason,
    },
    /// A peer has connected to this relay, once for each of its connections.
    PeerPresent(PeerPresent),
    /// Asks for a pong with the same bytes.
    Ping([u8; PING_BYTES]),
    /// Answers a ping of the client.
    Pong([u8; PING_BYTES]),
}

impl<'b> ServerFrame<'b> {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// With a payload of four gigabytes or more.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServerKey(key) => {
                put_frame(out, frame_type::SERVER_KEY, &[MAGIC, key.as_bytes()]);
            }
            Self::ServerInfo(sealed) => put_frame(out, frame_type::SERVER_INFO, &[sealed]),
            Self::RecvPacket { src, payload } => {
                put_frame(out, frame_type::RECV_PACKET, &[src.as_bytes(), payload]);
            }
            Self::KeepAlive => put_frame(out, frame_type::KEEP_ALIVE, &[]),
            Self::PeerGone { key, reason } => {
                put_frame(out, frame_type::PEER_GONE, &[key.as_bytes(), &[*reason as u8]]);
            }
            Self::PeerPresent(peer) => peer.encode(out),
            Self::Ping(data) => put_frame(out, frame_type::PING, &[data]),
            Self::Pong(data) => put_frame(out, frame_type::PONG, &[data]),
        }
    }

    fn lengths(frame_type: u8) -> Option<RangeInclusive<usize>> {
        match frame_type {
            frame_type::SERVER_KEY => Some(MAGIC.len() + KEY_BYTES..=SERVER_KEY_BYTES_MAX),
            frame_type::SERVER_INFO => Some(0..=SERVER_INFO_BYTES_MAX),
            frame_type::RECV_PACKET => Some(KEY_BYTES..=KEY_BYTES + PACKET_BYTES_MAX),
            frame_type::KEEP_ALIVE => Some(0..=PING_BYTES_MAX),
            frame_type::PEER_GONE | frame_type::PEER_PRESENT => Some(KEY_BYTES..=PING_BYTES_MAX),
            frame_type::PING | frame_type::PONG => Some(PING_BYTES..=PING_BYTES_MAX),
            _ => None,
        }
    }

    fn parse(RawFrame { frame_type, payload }: RawFrame<'b>) -> Result<Self, FrameError> {
        match frame_type {
            frame_type::SERVER_KEY => {
                let key = payload.strip_prefix(MAGIC).ok_or(FrameError::Magic)?;
                Ok(Self::ServerKey(split_key(frame_type, key)?.0))
            }
            frame_type::SERVER_INFO => Ok(Self::ServerInfo(payload)),
            frame_type::RECV_PACKET => {
                let (src, payload) = split_key(frame_type, payload)?;
                Ok(Self::RecvPacket { src, payload })
            }
            frame_type::PEER_GONE => {
                let (key, reason) = split_key(frame_type, payload)?;
                // Old relays give no reason. Any that we do not know still means that the peer is gone.
                let reason = match reason.first() {
                    Some(1) => PeerGoneReason::NotHere,
                    _ => PeerGoneReason::Disconnected,
                };
                Ok(Self::PeerGone { key, reason })
            }
            frame_type::PEER_PRESENT => PeerPresent::parse(payload).map(Self::PeerPresent),
            frame_type::PING => Ok(Self::Ping(*split(frame_type, payload)?.0)),
            frame_type::PONG => Ok(Self::Pong(*split(frame_type, payload)?.0)),
            _ => Ok(Self::KeepAlive),
        }
    }
}

/// Cuts frames out of a stream of bytes and skips those of unknown types.
///
/// It holds no bytes itself: what is left of `input` after a call is what the caller keeps, and shows
/// again with more behind it.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Bytes of an unknown frame that are still to be thrown away.
    to_skip: usize,
}

impl FrameReader {
    /// A reader at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next whole frame of a client off the front of `input`.
    ///
    /// Returns `Ok(None)` while bytes are missing; `input` then holds a frame's beginning, at most
    /// [`PACKET_BYTES_MAX`], two keys and a header long, or nothing.
    ///
    /// # Errors
    /// [`FrameError::Length`] as soon as the header is there, so that a hostile length costs nothing.
    pub fn next_from_client<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<ClientFrame<'b>>, FrameError> {
        self.next_raw(input, ClientFrame::lengths)?.map(ClientFrame::parse).transpose()
    }

    /// Takes the next whole frame of a relay off the front of `input`, as [`Self::next_from_client`] does.
    pub fn next_from_server<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<ServerFrame<'b>>, FrameError> {
        self.next_raw(input, ServerFrame::lengths)?.map(ServerFrame::parse).transpose()
    }

    fn next_raw<'b>(
        &mut self,
        input: &mut &'b [u8],
        lengths: fn(u8) -> Option<RangeInclusive<usize>>,
    ) -> Result<Option<RawFrame<'b>>, FrameError> {
        loop {
            let skipped = self.to_skip.min(input.len());
            *input = &input[skipped..];
            self.to_skip -= skipped;
            let Some((frame_type, bytes)) = peek_header(input) else {
                return Ok(None);
            };
            let Some(lengths) = lengths(frame_type) else {
                if bytes > SKIPPED_BYTES_MAX {
                    return Err(FrameError::Length { frame_type, bytes });
                }
                self.to_skip = HEADER_BYTES + bytes;
                continue;
            };
            return take_raw(input, frame_type, bytes, lengths);
        }
    }
}

/// A whole frame whose length suits its type.
pub(crate) struct RawFrame<'b> {
    pub(crate) frame_type: u8,
    pub(crate) payload: &'b [u8],
}

/// Reads type and payload length in bytes of the frame at the front of `input`.
pub(crate) fn peek_header(input: &[u8]) -> Option<(u8, usize)> {
    let (&[frame_type, b0, b1, b2, b3], _) = input.split_first_chunk::<HEADER_BYTES>()?;
    Some((frame_type, u32::from_be_bytes([b0, b1, b2, b3]) as usize))
}

/// Takes the frame whose header was peeked off the front of `input`, once all of it is there.
pub(crate) fn take_raw<'b>(
    input: &mut &'b [u8],
    frame_type: u8,
    bytes: usize,
    lengths: RangeInclusive<usize>,
) -> Result<Option<RawFrame<'b>>, FrameError> {
    if !lengths.contains(&bytes) {
        return Err(FrameError::Length { frame_type, bytes });
    }
    let Some((frame, rest)) = input.split_at_checked(HEADER_BYTES + bytes) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(RawFrame { frame_type, payload: &frame[HEADER_BYTES..] }))
}

/// Appends a frame whose payload is all `parts` in a row.
pub(crate) fn put_frame(out: &mut Vec<u8>, frame_type: u8, parts: &[&[u8]]) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(bytes).expect("invariant: frames are far below four gigabytes");
    out.reserve(HEADER_BYTES + bytes);
    out.push(frame_type);
    out.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Splits a fixed number of bytes off a payload; the table of lengths has seen to it that they are there.
pub(crate) fn split<const N: usize>(
    frame_type: u8,
    payload: &[u8],
) -> Result<(&[u8; N], &[u8]), FrameError> {
    payload.split_first_chunk().ok_or(FrameError::Length { frame_type, bytes: payload.len() })
}

pub(crate) fn split_key(frame_type: u8, payload: &[u8]) -> Result<(NodePublic, &[u8]), FrameError> {
    let (key, rest) = split(frame_type, payload)?;
    Ok((NodePublic::from_bytes(*key), rest))
}

#[cfg(test)]
mod tests;
