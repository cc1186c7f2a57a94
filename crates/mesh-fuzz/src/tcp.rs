//! The TCP of a node: any segments of a peer.

use std::task::{Context, Waker};

use mesh_stack::{Config, Network, Outgoing, PacketBatch, Stack};
use tokio::runtime::Builder;

/// Connections that strangers can have a node remember before a program takes them, as `mesh-stack` says.
const CONNECTIONS_MAX: usize = 128;

/// Flags, ports, sequence numbers and window of a segment, and how many bytes of options and payload follow.
const SEGMENT_BYTES: usize = 14;

/// Any bytes as segments to a listener, whose addresses and checksums are right. Acknowledgements are taken relative to what
/// the node has sent, or else none would be.
pub(crate) fn tcp(input: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    let config = Config { addresses: vec![[100, 64, 0, 1].into()], ..Config::default() };
    let (stack, mut outgoing) = Stack::new(&config).expect("randomness");
    let _listener = stack.listen_tcp(Network::Tcp, None, 80).expect("a free port");
    let (mut rest, mut sent) = (input, 0);
    while let Some((head, behind)) = rest.split_at_checked(SEGMENT_BYTES) {
        let options = usize::from(head[12] % 11) * 4;
        let (tail, behind) = behind.split_at((options + usize::from(head[13])).min(behind.len()));
        let (options, payload) = tail.split_at(options.min(tail.len()) & !3);
        stack.receive([packet(head, options, payload, sent)]);
        sent = last_sent(&mut outgoing).unwrap_or(sent);
        assert!(stack.connection_count() <= CONNECTIONS_MAX);
        rest = behind;
    }
}

/// The sequence number behind what the node has sent last.
fn last_sent(outgoing: &mut Outgoing) -> Option<u32> {
    let mut batch = PacketBatch::new();
    if outgoing.poll_batch(&mut batch, &mut Context::from_waker(Waker::noop())).is_pending() {
        return None;
    }
    let packet = batch.packets().last()?;
    let number = packet.get(24..28)?.try_into().ok()?;
    Some(u32::from_be_bytes(number).wrapping_add(1))
}

fn packet(head: &[u8], options: &[u8], payload: &[u8], sent: u32) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("at most 10 words of options");
    let acknowledged = sent.wrapping_add(i32::from(head[6].cast_signed()).cast_unsigned());
    let mut segment = vec![0, 1 + head[0] % 4, 0, 80];
    segment.extend(&head[2..6]);
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([words << 4, head[1] & 0x3f, head[7], head[8], 0, 0, head[9], head[10]]);
    segment.extend([options, payload].concat());
    let length = u16::try_from(20 + segment.len()).expect("short");
    let [high, low] = length.to_be_bytes();
    let mut packet =
        vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0, 100, 64, 0, 2, 100, 64, 0, 1];
    let header = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&header);
    let [high, low] = (length - 20).to_be_bytes();
    let pseudo = [&packet[12..20], &[0, 6, high, low], &segment[..]].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    packet.extend(segment);
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0_u64, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded to 16 bits")
}
