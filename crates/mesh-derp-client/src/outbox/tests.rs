use std::time::Duration;

use mesh_derp::FrameReader;

use super::*;
use crate::numbers::Numbers;

fn peer(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

/// A packet of data whose number can be read from it.
fn data(number: u32, bytes: usize) -> Bytes {
    let mut packet = vec![0; bytes];
    let number = number.to_be_bytes();
    let shown = bytes.min(number.len());
    packet[..shown].copy_from_slice(&number[..shown]);
    packet.into()
}

fn disco(bytes: usize) -> Bytes {
    let mut packet = b"TS\xf0\x9f\x92\xac".to_vec();
    packet.resize(bytes.max(62), 7);
    packet.into()
}

/// A frame as text, with the packet's length and number.
fn tell(frame: &ClientFrame<'_>) -> String {
    match frame {
        ClientFrame::SendPacket { dst, payload } => tell_packet(*dst, payload),
        other @ (ClientFrame::NotePreferred(_)
        | ClientFrame::Ping(_)
        | ClientFrame::Pong(_)
        | ClientFrame::ForwardPacket { .. }
        | ClientFrame::WatchConns
        | ClientFrame::ClosePeer(_)) => format!("{other:?}"),
    }
}

fn tell_packet(dst: NodePublic, payload: &[u8]) -> String {
    format!("{:?} {} {:?}", PacketKind::of(payload), payload.len(), (dst, payload.get(..4)))
}

/// One write of the outbox, and how many bytes it has.
fn write(outbox: &mut Outbox) -> (Vec<String>, usize) {
    let mut out = Vec::new();
    outbox.poll_output(&mut out, Instant::now());
    let (mut rest, mut frames) = (&out[..], FrameReader::new());
    let mut told = Vec::new();
    while let Some(frame) = frames.next_from_client(&mut rest).expect("frames") {
        told.push(tell(&frame));
    }
    assert!(rest.is_empty());
    (told, out.len())
}

fn drain(outbox: &mut Outbox) -> Vec<String> {
    let mut all = Vec::new();
    while !outbox.is_empty() {
        all.extend(write(outbox).0);
    }
    all
}

fn tally(packets: u64, bytes: u64) -> Tally {
    Tally { packets, bytes }
}

#[test]
fn the_oldest_packets_give_way_to_more_than_the_queue_holds() {
    let mut outbox = Outbox::new(false);
    for number in 0..=QUEUE_PACKETS_MAX + 1 {
        outbox.push_packet(peer(1), data(u32::try_from(number).expect("small"), 100));
    }
    assert_eq!(outbox.status().dropped, [tally(0, 0), tally(2, 200)]);
    let all = drain(&mut outbox);
    assert_eq!(all.len(), QUEUE_PACKETS_MAX);
    assert_eq!(all[0], tell_packet(peer(1), &data(2, 100)));
}

#[test]
fn the_oldest_packets_give_way_to_more_bytes_than_the_queue_holds() {
    let mut outbox = Outbox::new(false);
    for number in 0..16 {
        outbox.push_packet(peer(1), data(number, PACKET_BYTES_MAX));
    }
    assert_eq!(outbox.status().dropped, [tally(0, 0); KINDS]);
    outbox.push_packet(peer(1), data(16, 1));
    assert_eq!(outbox.status().dropped, [tally(0, 0), tally(1, 65_536)]);
    assert_eq!(drain(&mut outbox).len(), 16);
}

#[test]
fn a_flood_of_data_leaves_disco_alone() {
    let mut outbox = Outbox::new(false);
    outbox.push_packet(peer(2), disco(62));
    for number in 0..2000 {
        outbox.push_packet(peer(1), data(number, 1400));
    }
    assert_eq!(outbox.status().dropped[PacketKind::Disco as usize], tally(0, 0));
    assert_eq!(write(&mut outbox).0[0], tell_packet(peer(2), &disco(62)));
}

#[test]
fn a_packet_that_no_relay_takes_is_dropped() {
    let mut outbox = Outbox::new(false);
    outbox.push_packet(peer(1), data(0, PACKET_BYTES_MAX + 1));
    assert!(outbox.is_empty());
    assert_eq!(outbox.status().dropped, [tally(0, 0), tally(1, 65_537)]);
}

#[test]
fn one_write_takes_one_packet_beyond_its_bytes_at_most() {
    let mut outbox = Outbox::new(false);
    for number in 0..16 {
        outbox.push_packet(peer(1), data(number, PACKET_BYTES_MAX - 100));
    }
    while !outbox.is_empty() {
        assert!(write(&mut outbox).1 < WRITE_BYTES + PACKET_BYTES_MAX + 37);
    }
}

#[test]
fn every_relay_is_told_once_that_it_is_home() {
    let mut outbox = Outbox::new(true);
    for _ in 0..2 {
        outbox.handle_connected(None, Instant::now());
        assert_eq!(drain(&mut outbox), ["NotePreferred(true)"]);
        outbox.handle_disconnected();
    }
    outbox.set_home(false);
    assert_eq!(drain(&mut outbox), ["NotePreferred(false)"]);
    outbox.handle_connected(None, Instant::now());
    assert!(outbox.is_empty());
    outbox.set_home(true);
    outbox.set_home(false);
    assert!(outbox.is_empty());
}

#[test]
fn one_pong_waits_at_most_and_leaves_first() {
    let mut outbox = Outbox::new(true);
    outbox.push_packet(peer(1), data(1, 10));
    outbox.push_pong([1; 8]);
    outbox.push_pong([2; 8]);
    let all = drain(&mut outbox);
    assert_eq!(all[..2], ["Pong([1, 1, 1, 1, 1, 1, 1, 1])", "NotePreferred(true)"]);
    assert_eq!(all.len(), 3);
    outbox.push_pong([3; 8]);
    outbox.handle_connected(None, Instant::now());
    assert_eq!(drain(&mut outbox), ["NotePreferred(true)"]);
}

#[test]
fn packets_beyond_the_rate_that_the_relay_tells_are_dropped() {
    let mut outbox = Outbox::new(false);
    let start = Instant::now();
    let frame = AROUND_PACKET_BYTES as u64 + 963;
    let rate = Rate { per_second: frame, burst: 3 * frame };
    let push = |outbox: &mut Outbox| (0..5).for_each(|_| outbox.push_packet(peer(1), data(1, 963)));
    outbox.handle_connected(Some(rate), start);
    push(&mut outbox);
    outbox.poll_output(&mut Vec::new(), start);
    let told = |outbox: &Outbox| (outbox.status().sent[1], outbox.status().dropped[1]);
    assert_eq!(told(&outbox), (tally(3, 3 * 963), tally(2, 2 * 963)));
    assert!(outbox.is_empty());
    push(&mut outbox);
    outbox.poll_output(&mut Vec::new(), start + Duration::from_secs(1));
    assert_eq!(told(&outbox), (tally(4, 4 * 963), tally(6, 6 * 963)));
    // The next relay has told none.
    outbox.handle_connected(None, start);
    push(&mut outbox);
    outbox.poll_output(&mut Vec::new(), start);
    assert_eq!(told(&outbox), (tally(9, 9 * 963), tally(6, 6 * 963)));
}

/// What is queued as one list, searched from its beginning for everything.
#[derive(Default)]
struct Model {
    waiting: Vec<(NodePublic, Bytes)>,
    sent: [Tally; KINDS],
    dropped: [Tally; KINDS],
    /// Packets that gave way to later ones.
    pushed_out: usize,
}

impl Model {
    fn push(&mut self, dst: NodePublic, packet: Bytes) {
        let kind = PacketKind::of(&packet);
        if packet.len() > PACKET_BYTES_MAX {
            return self.dropped[kind as usize].add(packet.len());
        }
        self.waiting.push((dst, packet));
        loop {
            let of_kind =
                || self.waiting.iter().filter(|(_, packet)| PacketKind::of(packet) == kind);
            let bytes: usize = of_kind().map(|(_, packet)| packet.len()).sum();
            if of_kind().count() <= QUEUE_PACKETS_MAX && bytes <= QUEUE_BYTES_MAX {
                return;
            }
            let (_, oldest) = self.take(kind).expect("too much waits");
            self.dropped[kind as usize].add(oldest.len());
            self.pushed_out += 1;
        }
    }

    fn drop_packets(&mut self) {
        for (_, packet) in self.waiting.drain(..) {
            self.dropped[PacketKind::of(&packet) as usize].add(packet.len());
        }
    }

    fn take(&mut self, kind: PacketKind) -> Option<(NodePublic, Bytes)> {
        let of_kind = |(_, packet): &(NodePublic, Bytes)| PacketKind::of(packet) == kind;
        Some(self.waiting.remove(self.waiting.iter().position(of_kind)?))
    }

    fn write(&mut self) -> Vec<String> {
        let (mut told, mut bytes) = (Vec::new(), 0);
        for kind in PacketKind::ALL {
            while bytes < WRITE_BYTES
                && let Some((dst, packet)) = self.take(kind)
            {
                bytes += 37 + packet.len();
                self.sent[kind as usize].add(packet.len());
                told.push(tell_packet(dst, &packet));
            }
        }
        told
    }
}

#[test]
fn any_mix_of_packets_leaves_as_from_one_searched_list() {
    // Long packets reach the limit of bytes, short ones that of packets.
    for bytes_max in [64, 3000, PACKET_BYTES_MAX + 2] {
        let mut pushed_out = 0;
        for seed in 1..=8 {
            pushed_out += check_mix(bytes_max, Numbers::new(seed));
        }
        assert!(pushed_out > 100, "{pushed_out} packets were pushed out");
    }
}

/// Compares an outbox with the model, and says how many packets were pushed out.
fn check_mix(bytes_max: usize, mut numbers: Numbers) -> usize {
    let (mut outbox, mut model) = (Outbox::new(false), Model::default());
    for step in 0..1500 {
        let bytes = numbers.below(bytes_max);
        let packet = if numbers.below(8) == 0 { disco(bytes) } else { data(step, bytes) };
        let dst = peer(u8::try_from(numbers.below(3)).expect("small"));
        outbox.push_packet(dst, packet.clone());
        model.push(dst, packet);
        match numbers.below(2000) {
            0 => {
                outbox.drop_packets();
                model.drop_packets();
            }
            1..10 => assert_eq!(write(&mut outbox).0, model.write(), "step {step}"),
            _ => assert_eq!(outbox.is_empty(), model.waiting.is_empty()),
        }
    }
    assert_eq!(outbox.status().sent, model.sent);
    assert_eq!(outbox.status().dropped, model.dropped);
    model.pushed_out
}
