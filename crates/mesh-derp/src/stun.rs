//! STUN, as far as nodes need it: what address does a datagram of mine come from?
//!
//! Only requests of Tailscale clients are answered, told by their SOFTWARE and FINGERPRINT attributes: an
//! answer is hardly longer than such a request, so that nobody can multiply traffic with a forged sender.
//!
//! Source: RFC 5389; tailscale `net/stun/stun.go`.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Longest request that is looked at, in bytes. Clients send 40.
pub const REQUEST_BYTES_MAX: usize = 512;

const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_RESPONSE: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const ATTRIBUTE_XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
const ATTRIBUTE_SOFTWARE: u16 = 0x8022;
const ATTRIBUTE_FINGERPRINT: u16 = 0x8028;

/// What Tailscale clients call themselves.
const SOFTWARE: &[u8] = b"tailnode";

/// Bytes of the FINGERPRINT attribute, which ends a request and covers all before it.
const FINGERPRINT_BYTES: usize = 8;

/// Tells a fingerprint from a plain CRC-32.
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Names a request, so that its answer can be told from others.
pub type TransactionId = [u8; 12];

/// Why a datagram is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StunError {
    /// It is no STUN binding request.
    #[error("not a STUN binding request")]
    NotBindingRequest,
    /// Its attributes run over its end.
    #[error("STUN attributes run over the end of the message")]
    Attributes,
    /// It does not come from a Tailscale client.
    #[error("STUN request of other software")]
    Software,
    /// It does not end with a fingerprint of itself.
    #[error("STUN request without a valid fingerprint")]
    Fingerprint,
}

/// Reads a binding request of a Tailscale client.
pub fn parse_binding_request(datagram: &[u8]) -> Result<TransactionId, StunError> {
    let (header, mut attributes) =
        datagram.split_first_chunk::<HEADER_BYTES>().ok_or(StunError::NotBindingRequest)?;
    if header[..2] != BINDING_REQUEST || header[4..8] != MAGIC_COOKIE {
        return Err(StunError::NotBindingRequest);
    }
    let mut from_client = false;
    let mut fingerprint = None;
    while !attributes.is_empty() {
        let (number, value) = take_attribute(&mut attributes).ok_or(StunError::Attributes)?;
        from_client |= number == ATTRIBUTE_SOFTWARE && value == SOFTWARE;
        fingerprint = (number == ATTRIBUTE_FINGERPRINT).then_some(value);
    }
    if !from_client {
        return Err(StunError::Software);
    }
    let covered = &datagram[..datagram.len() - FINGERPRINT_BYTES];
    if fingerprint != Some(&(crc32(covered) ^ FINGERPRINT_XOR).to_be_bytes()) {
        return Err(StunError::Fingerprint);
    }
    header[8..].try_into().map_err(|_| StunError::NotBindingRequest)
}

/// Tells the sender of a request its address. One that IPv6 maps from IPv4 is given as IPv4.
pub fn encode_binding_response(transaction: &TransactionId, sender: SocketAddr) -> Vec<u8> {
    let (family, value_bytes, mut address) = match sender.ip().to_canonical() {
        IpAddr::V4(ip) => (1, 8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, 20, ip.octets().to_vec()),
    };
    for (byte, mask) in address.iter_mut().zip(MAGIC_COOKIE.iter().chain(transaction)) {
        *byte ^= mask;
    }
    let [port_high, port_low] = sender.port().to_be_bytes();
    let port = [port_high ^ MAGIC_COOKIE[0], port_low ^ MAGIC_COOKIE[1]];
    [
        BINDING_RESPONSE.as_slice(),
        &[0, 4 + value_bytes],
        &MAGIC_COOKIE,
        transaction,
        &ATTRIBUTE_XOR_MAPPED_ADDRESS,
        &[0, value_bytes],
        &[0, family],
        &port,
        &address,
    ]
    .concat()
}

/// Takes one attribute with its padding off the front of `input`: its number and value.
fn take_attribute<'b>(input: &mut &'b [u8]) -> Option<(u16, &'b [u8])> {
    let (&[n0, n1, l0, l1], rest) = input.split_first_chunk::<4>()?;
    let bytes = usize::from(u16::from_be_bytes([l0, l1]));
    let (padded, rest) = rest.split_at_checked(bytes.next_multiple_of(4))?;
    *input = rest;
    Some((u16::from_be_bytes([n0, n1]), &padded[..bytes]))
}

/// CRC-32 as Ethernet and zip have it, bit by bit: a request has 32 bytes to cover.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests;
