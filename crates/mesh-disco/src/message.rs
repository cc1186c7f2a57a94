//! What one node tells another: the messages that stand inside the box, and their bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_keys::{KEY_BYTES, NodePublic};

use crate::DiscoError;
use crate::channel::{DATAGRAM_BYTES_MAX, OVERHEAD_BYTES};

/// Most endpoints that are read from a call-me-maybe, and written to one; those behind them are left out.
/// A node has a few addresses for each of its interfaces.
pub const ENDPOINTS_MAX: usize = 64;

/// Most bytes in a message that fits its datagram.
pub(crate) const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES;

const TYPE_PING: u8 = 0x01;
const TYPE_PONG: u8 = 0x02;
const TYPE_CALL_ME_MAYBE: u8 = 0x03;

/// The version of messages that is written here, and the only one there is.
const VERSION: u8 = 0;

const TRANSACTION_BYTES: usize = 12;
const IP_BYTES: usize = 16;
const ENDPOINT_BYTES: usize = IP_BYTES + 2;

/// Names a ping, so that its pong can be told from others. Random: who knows it has seen the ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; TRANSACTION_BYTES]);

/// A disco message.
///
/// On the wire every address is IPv6. Those that are mapped from IPv4 read as IPv4, whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for a pong, to be sent the way that this came.
    Ping {
        /// What the pong is to repeat.
        transaction: TransactionId,
        /// Who the sender claims to be. Clients before 1.16 do not tell; the all-zero key is none either.
        node_key: Option<NodePublic>,
        /// How many bytes follow that only make the datagram longer, to try what the way lets through.
        padding_bytes: usize,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        transaction: TransactionId,
        /// Where the ping came from, as its receiver saw it.
        src: SocketAddr,
    },
    /// Asks the receiver to ping the sender, who has pinged it in vain or is about to. Comes by a relay only.
    CallMeMaybe {
        /// Where the sender may be reached; at most [`ENDPOINTS_MAX`].
        endpoints: Vec<SocketAddr>,
    },
}

impl Message {
    /// Appends the message's bytes to `out`, as [`Self::parse`] reads them.
    ///
    /// What does not fit is left out: endpoints beyond [`ENDPOINTS_MAX`], padding beyond a datagram of
    /// [`DATAGRAM_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Ping { transaction, node_key, padding_bytes } => {
                out.extend_from_slice(&[TYPE_PING, VERSION]);
                out.extend_from_slice(&transaction.0);
                out.extend(node_key.iter().flat_map(NodePublic::as_bytes));
                let end = out.len().saturating_add(*padding_bytes);
                out.resize(end.min(start + PAYLOAD_BYTES_MAX), 0);
            }
            Self::Pong { transaction, src } => {
                out.extend_from_slice(&[TYPE_PONG, VERSION]);
                out.extend_from_slice(&transaction.0);
                out.extend_from_slice(&encode_endpoint(*src));
            }
            Self::CallMeMaybe { endpoints } => {
                out.extend_from_slice(&[TYPE_CALL_ME_MAYBE, VERSION]);
                out.extend(endpoints.iter().take(ENDPOINTS_MAX).copied().flat_map(encode_endpoint));
            }
        }
    }

    /// Reads a message: its type, its version, and what the type has.
    ///
    /// Of a ping or pong of a later version, what is known here is read, for later versions only append. A
    /// call-me-maybe that is of another version or not made of whole endpoints tells none, and is still a call.
    ///
    /// # Errors
    /// [`DiscoError::TooLong`], [`DiscoError::Truncated`] and [`DiscoError::UnknownType`].
    pub fn parse(payload: &[u8]) -> Result<Self, DiscoError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DiscoError::TooLong);
        }
        let (&[message_type, version], body) =
            payload.split_first_chunk().ok_or(DiscoError::Truncated)?;
        match message_type {
            TYPE_PING => parse_ping(body).ok_or(DiscoError::Truncated),
            TYPE_PONG => parse_pong(body).ok_or(DiscoError::Truncated),
            TYPE_CALL_ME_MAYBE => Ok(parse_call_me_maybe(version, body)),
            unknown => Err(DiscoError::UnknownType(unknown)),
        }
    }
}

fn parse_ping(body: &[u8]) -> Option<Message> {
    let (&transaction, rest) = body.split_first_chunk()?;
    let named = rest
        .split_first_chunk::<KEY_BYTES>()
        .and_then(|(&key, padding)| Some((NodePublic::from_bytes(key).non_zero()?, padding)));
    let (node_key, padding) = named.map_or((None, rest), |(key, padding)| (Some(key), padding));
    let transaction = TransactionId(transaction);
    Some(Message::Ping { transaction, node_key, padding_bytes: padding.len() })
}

fn parse_pong(body: &[u8]) -> Option<Message> {
    let (&transaction, rest) = body.split_first_chunk()?;
    let src = parse_endpoint(rest.first_chunk()?);
    Some(Message::Pong { transaction: TransactionId(transaction), src })
}

fn parse_call_me_maybe(version: u8, body: &[u8]) -> Message {
    let (endpoints, rest) = body.as_chunks();
    let readable = version == VERSION && rest.is_empty();
    let endpoints = if readable { endpoints } else { &[] };
    let endpoints = endpoints.iter().take(ENDPOINTS_MAX).map(parse_endpoint).collect();
    Message::CallMeMaybe { endpoints }
}

fn encode_endpoint(endpoint: SocketAddr) -> [u8; ENDPOINT_BYTES] {
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ENDPOINT_BYTES];
    bytes[..IP_BYTES].copy_from_slice(&ip.octets());
    bytes[IP_BYTES..].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

fn parse_endpoint(bytes: &[u8; ENDPOINT_BYTES]) -> SocketAddr {
    let [ip @ .., port_high, port_low] = *bytes;
    let port = u16::from_be_bytes([port_high, port_low]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

#[cfg(test)]
mod tests;
