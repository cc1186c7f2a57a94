//! Packets that tell who sent them to whom, so that whoever gets one can say whether it should.

use mesh_derp::{PACKET_BYTES_MAX, PacketKind};

/// A client's key, by number.
pub(crate) type Key = u16;

/// A connection, by the order in which they were made.
pub(crate) type ConnectionId = u32;

/// First bytes of a disco packet, with room for a key and a nonce.
const DISCO: &[u8; 62] =
    b"TS\xf0\x9f\x92\xac--------------------------------------------------------";

/// Bytes that tell what a packet is, without what makes it disco.
const STAMP_BYTES: usize = 4 + 2 + 4;

/// What packets are padded with: each begins elsewhere, by its number.
static PADDING: [u8; PACKET_BYTES_MAX + 256] = {
    let (mut bytes, mut place) = ([0; PACKET_BYTES_MAX + 256], 1);
    while place < bytes.len() {
        bytes[place] = (bytes[place - 1] + 1) % 251;
        place += 1;
    }
    bytes
};

/// What must keep its order: the packets of one kind from one connection to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) from: ConnectionId,
    pub(crate) to: Key,
    pub(crate) is_disco: bool,
}

impl Flow {
    pub(crate) fn kind(self) -> PacketKind {
        if self.is_disco { PacketKind::Disco } else { PacketKind::Data }
    }
}

/// A packet of a flow, by its number, some bytes longer than it need be.
pub(crate) fn packet(flow: Flow, number: u32, padding: usize) -> Vec<u8> {
    let mut bytes = if flow.is_disco { DISCO.to_vec() } else { Vec::new() };
    bytes.extend_from_slice(&flow.from.to_be_bytes());
    bytes.extend_from_slice(&flow.to.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&PADDING[number as usize % 256..][..padding]);
    bytes
}

/// What a packet says of itself.
///
/// # Panics
/// If nobody has made such a packet.
pub(crate) fn parse_packet(payload: &[u8]) -> (Flow, u32) {
    let is_disco = PacketKind::of(payload) == PacketKind::Disco;
    let stamp = if is_disco { &payload[DISCO.len()..] } else { payload };
    let (&[f0, f1, f2, f3, t0, t1, n0, n1, n2, n3], padding) =
        stamp.split_first_chunk::<STAMP_BYTES>().expect("a whole packet");
    let flow = Flow {
        from: u32::from_be_bytes([f0, f1, f2, f3]),
        to: u16::from_be_bytes([t0, t1]),
        is_disco,
    };
    let number = u32::from_be_bytes([n0, n1, n2, n3]);
    let expected = &PADDING[number as usize % 256..][..padding.len()];
    assert!(padding == expected, "{flow:?} {number} was changed");
    (flow, number)
}
