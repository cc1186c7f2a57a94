//! STUN, as far as nodes need it: what address does a datagram of mine come from?
//!
//! Only requests of Tailscale clients are answered, told by their SOFTWARE and FINGERPRINT attributes: an
//! answer is hardly longer than such a request, so that nobody can multiply traffic with a forged sender.
//! The client's half is here too, and reads what servers of any make answer. Nothing proves an answer but the
//! transaction that it repeats, which is to be random and compared by the caller.
//!
//! Source: RFC 5389; tailscale `net/stun/stun.go`.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Longest request that is looked at, in bytes. Clients send 40.
const REQUEST_BYTES_MAX: usize = 512;

const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_RESPONSE: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const ATTRIBUTE_MAPPED_ADDRESS: u16 = 0x0001;
const ATTRIBUTE_XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// What some servers send instead: from a draft of RFC 5389.
const ATTRIBUTE_XOR_MAPPED_ADDRESS_DRAFT: u16 = 0x8020;
const ATTRIBUTE_SOFTWARE: u16 = 0x8022;
const ATTRIBUTE_FINGERPRINT: u16 = 0x8028;

const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

/// The cookie and the transaction: as long as an address may be.
type Mask = [u8; 16];
const NO_MASK: Mask = [0; 16];

/// What Tailscale clients call themselves.
const SOFTWARE: &[u8] = b"tailnode";

/// Bytes of the FINGERPRINT attribute, which ends a request and covers all before it.
const FINGERPRINT_BYTES: usize = 8;

/// Tells a fingerprint from a plain CRC-32.
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Names a request, so that its answer can be told from others.
pub type TransactionId = [u8; 12];

/// Why a datagram is not answered, or is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StunError {
    /// It is no STUN binding request.
    #[error("not a STUN binding request")]
    NotBindingRequest,
    /// It is no successful STUN binding response.
    #[error("not a STUN binding response")]
    NotBindingResponse,
    /// Its attributes run over its end.
    #[error("STUN attributes run over the end of the message")]
    Attributes,
    /// It does not come from a Tailscale client.
    #[error("STUN request of other software")]
    Software,
    /// It does not end with a fingerprint of itself.
    #[error("STUN request without a valid fingerprint")]
    Fingerprint,
    /// It tells no address.
    #[error("STUN response without an address")]
    Address,
}

/// Reads a binding request of a Tailscale client.
pub fn parse_binding_request(datagram: &[u8]) -> Result<TransactionId, StunError> {
    let header = split_header(datagram, BINDING_REQUEST);
    let header = header.filter(|_| datagram.len() <= REQUEST_BYTES_MAX);
    let Header { transaction, rest: mut attributes, .. } =
        header.ok_or(StunError::NotBindingRequest)?;
    let mut from_client = false;
    let mut last_fingerprint = None;
    while !attributes.is_empty() {
        let (number, value) = take_attribute(&mut attributes).ok_or(StunError::Attributes)?;
        from_client |= number == ATTRIBUTE_SOFTWARE && value == SOFTWARE;
        last_fingerprint = (number == ATTRIBUTE_FINGERPRINT).then_some(value);
    }
    if !from_client {
        return Err(StunError::Software);
    }
    let covered = &datagram[..datagram.len() - FINGERPRINT_BYTES];
    if last_fingerprint != Some(&fingerprint(covered)) {
        return Err(StunError::Fingerprint);
    }
    Ok(transaction)
}

/// Asks a server for the address that this datagram comes from; servers for Tailscale clients answer it too.
pub fn encode_binding_request(transaction: &TransactionId) -> Vec<u8> {
    let covered = [
        BINDING_REQUEST.as_slice(),
        &[0, 20], // bytes of attributes
        &MAGIC_COOKIE,
        transaction,
        &ATTRIBUTE_SOFTWARE.to_be_bytes(),
        &[0, 8], // bytes of its value
        SOFTWARE,
    ]
    .concat();
    let fingerprint = fingerprint(&covered);
    [covered.as_slice(), &ATTRIBUTE_FINGERPRINT.to_be_bytes(), &[0, 4], &fingerprint].concat()
}

/// Tells the sender of a request its address. One that IPv6 maps from IPv4 is given as IPv4.
pub fn encode_binding_response(transaction: &TransactionId, sender: SocketAddr) -> Vec<u8> {
    let (family, value_bytes, mut address) = match sender.ip().to_canonical() {
        IpAddr::V4(ip) => (FAMILY_IPV4, 8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_IPV6, 20, ip.octets().to_vec()),
    };
    let mut port = sender.port().to_be_bytes();
    let mask = address_mask(transaction);
    apply_mask(&mut port, &mask);
    apply_mask(&mut address, &mask);
    [
        BINDING_RESPONSE.as_slice(),
        &[0, 4 + value_bytes],
        &MAGIC_COOKIE,
        transaction,
        &ATTRIBUTE_XOR_MAPPED_ADDRESS.to_be_bytes(),
        &[0, value_bytes],
        &[0, family],
        &port,
        &address,
    ]
    .concat()
}

/// Reads a server's answer: the request's transaction, and the address that the request came from.
///
/// XOR-MAPPED-ADDRESS counts before the older MAPPED-ADDRESS, which some NATs rewrite; the first of each kind
/// that can be read is taken. An address that IPv6 maps from IPv4 is given as IPv4. Bytes behind the message
/// are ignored.
pub fn parse_binding_response(datagram: &[u8]) -> Result<(TransactionId, SocketAddr), StunError> {
    let Header { attributes_bytes, transaction, rest } =
        split_header(datagram, BINDING_RESPONSE).ok_or(StunError::NotBindingResponse)?;
    let mut attributes = rest.get(..attributes_bytes).ok_or(StunError::Attributes)?;
    let mask = address_mask(&transaction);
    let mut address = None;
    let mut plain_address = None;
    while !attributes.is_empty() {
        let (number, value) = take_attribute(&mut attributes).ok_or(StunError::Attributes)?;
        match number {
            ATTRIBUTE_XOR_MAPPED_ADDRESS | ATTRIBUTE_XOR_MAPPED_ADDRESS_DRAFT => {
                address = address.or_else(|| parse_address(value, &mask));
            }
            ATTRIBUTE_MAPPED_ADDRESS => {
                plain_address = plain_address.or_else(|| parse_address(value, &NO_MASK));
            }
            _ => {}
        }
    }
    let address = address.or(plain_address).ok_or(StunError::Address)?;
    Ok((transaction, address))
}

/// What is read of a message's first bytes.
struct Header<'d> {
    /// How many bytes of attributes follow, as the sender says.
    attributes_bytes: usize,
    transaction: TransactionId,
    /// All bytes that do follow.
    rest: &'d [u8],
}

/// Takes the header off a message of the kind that is wanted.
fn split_header(datagram: &[u8], wanted: [u8; 2]) -> Option<Header<'_>> {
    let (header, rest) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let (&[length_high, length_low], header) = header.strip_prefix(&wanted)?.split_first_chunk()?;
    let transaction = header.strip_prefix(&MAGIC_COOKIE)?.try_into().ok()?;
    let attributes_bytes = usize::from(u16::from_be_bytes([length_high, length_low]));
    Some(Header { attributes_bytes, transaction, rest })
}

/// Takes one attribute with its padding off the front of `input`: its number and value.
fn take_attribute<'b>(input: &mut &'b [u8]) -> Option<(u16, &'b [u8])> {
    let (&[n0, n1, l0, l1], rest) = input.split_first_chunk::<4>()?;
    let bytes = usize::from(u16::from_be_bytes([l0, l1]));
    let (padded, rest) = rest.split_at_checked(bytes.next_multiple_of(4))?;
    *input = rest;
    Some((u16::from_be_bytes([n0, n1]), &padded[..bytes]))
}

/// The value of an attribute that tells an address, masked or not.
fn parse_address(value: &[u8], mask: &Mask) -> Option<SocketAddr> {
    let (&[_, family, mut port @ ..], address) = value.split_first_chunk::<4>()?;
    apply_mask(&mut port, mask);
    let ip = match family {
        FAMILY_IPV4 => IpAddr::from(unmask::<4>(address, mask)?),
        FAMILY_IPV6 => IpAddr::from(unmask::<16>(address, mask)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port)))
}

fn unmask<const N: usize>(address: &[u8], mask: &Mask) -> Option<[u8; N]> {
    let mut address = *address.first_chunk()?;
    apply_mask(&mut address, mask);
    Some(address)
}

/// What hides an address in XOR-MAPPED-ADDRESS from NATs that would rewrite it.
fn address_mask(transaction: &TransactionId) -> Mask {
    let mut mask = NO_MASK;
    mask[..MAGIC_COOKIE.len()].copy_from_slice(&MAGIC_COOKIE);
    mask[MAGIC_COOKIE.len()..].copy_from_slice(transaction);
    mask
}

fn apply_mask(bytes: &mut [u8], mask: &Mask) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32(covered) ^ FINGERPRINT_XOR).to_be_bytes()
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
