//! The packets that clients send each other: what a relay can tell about them.

use std::ops::AddAssign;

/// Most bytes in one relayed packet, without the keys and header of its frame.
///
/// Source: tailscale `derp/derp.go`, `MaxPacketSize`.
pub const PACKET_BYTES_MAX: usize = 65_536;

/// Number of [`PacketKind`]s, for counters that keep one value for each.
pub const KINDS: usize = 2;

/// First bytes of every disco packet: `TS` and a speech balloon in UTF-8.
const DISCO_MAGIC: &[u8] = b"TS\xf0\x9f\x92\xac";

/// Bytes of a disco packet before its sealed part: magic, sender's disco key, nonce.
const DISCO_BYTES_MIN: usize = DISCO_MAGIC.len() + 32 + 24;

/// What a packet is for. The two kinds queue apart, so that a flood of one does not drown the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// Path discovery between two nodes: few, small, and the way out of relaying.
    Disco = 0,
    /// Everything else, which is WireGuard.
    Data = 1,
}

impl PacketKind {
    /// Both kinds, in the order in which they leave.
    pub const ALL: [Self; KINDS] = [Self::Disco, Self::Data];

    /// Tells the kind of a packet from its first bytes.
    ///
    /// Source: tailscale `disco/disco.go`, `LooksLikeDiscoWrapper`.
    pub fn of(payload: &[u8]) -> Self {
        if payload.len() >= DISCO_BYTES_MIN && payload.starts_with(DISCO_MAGIC) {
            Self::Disco
        } else {
            Self::Data
        }
    }
}

/// A number of packets and the bytes of their payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many packets.
    pub packets: u64,
    /// How many bytes of payload, without keys and headers.
    pub bytes: u64,
}

impl Tally {
    /// Counts one more packet of `payload_bytes`.
    pub fn add(&mut self, payload_bytes: usize) {
        self.packets += 1;
        self.bytes += payload_bytes as u64;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disco_needs_the_magic_and_room_for_its_header() {
        let mut disco = b"TS\xf0\x9f\x92\xac".to_vec();
        disco.resize(DISCO_BYTES_MIN, 0);
        assert_eq!(PacketKind::of(&disco), PacketKind::Disco);
        assert_eq!(PacketKind::of(&disco[..DISCO_BYTES_MIN - 1]), PacketKind::Data);
        disco[5] ^= 1;
        assert_eq!(PacketKind::of(&disco), PacketKind::Data);
        assert_eq!(PacketKind::of(&[]), PacketKind::Data);
    }
}
