//! Packets that nobody honest sends, given to the stack without a clock and without tasks.

use std::net::IpAddr;
use std::task::{Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, IpVersion, Ipv4Packet, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};
use tokio::io::ReadBuf;

use super::{A4, A6, B4, B6, at};
use crate::connections::ConnectionId;
use crate::inner::Inner;
use crate::listen::{ListenKey, Network};
use crate::{Config, PacketBatch};

const PORT: u16 = 80;

/// A stack at `B4` and a peer at `A4` that sends what it likes.
struct Scene {
    inner: Inner,
    now: StackInstant,
    listener: ListenKey,
    /// The port of the peer.
    port: u16,
    /// The stack's port.
    local_port: u16,
    /// What the stack acknowledged last.
    expects: TcpSeqNumber,
    /// The end of what the stack sent last.
    has_sent: TcpSeqNumber,
    held: Option<ConnectionId>,
}

/// Something that a peer or a program does.
#[derive(Debug, Clone)]
enum Action {
    Segment {
        control: TcpControl,
        sequence: i32,
        acknowledges: Option<i32>,
        window: u16,
        length: usize,
    },
    Options {
        scale: Option<u8>,
        segment_bytes: Option<u16>,
    },
    /// Consecutive full segments, all in one batch.
    Burst(usize),
    Fill,
    Wait(u64),
    Accept,
    Connect,
    Write(usize),
    Read(usize),
    ShutDown,
    LetGo,
}

impl Scene {
    fn new() -> Self {
        let addresses = vec![at(B4, 0).ip(), at(B6, 0).ip()];
        let now = StackInstant::from_millis(1000);
        let mut inner = Inner::new(&Config { addresses, ..Config::default() }, 7, now);
        let listener = inner.listen(Network::Tcp, None, PORT).expect("it is free");
        Self {
            inner,
            now,
            listener,
            port: 4000,
            local_port: PORT,
            expects: TcpSeqNumber(1000),
            has_sent: TcpSeqNumber(0),
            held: None,
        }
    }

    fn receive(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.inner.handle_packet(packet, self.now);
        }
        self.inner.settle_touched(self.now);
    }

    /// Takes all packets out, notes where the connection stands, and says how many there were.
    fn fill(&mut self) -> usize {
        let (mut batch, mut count) = (PacketBatch::new(), 0);
        loop {
            batch.clear();
            self.inner.fill(&mut batch, self.now);
            if batch.is_empty() {
                return count;
            }
            count += batch.len();
            assert!(count < 10_000, "it sends without end");
            for packet in batch.packets().filter(|packet| packet[0] >> 4 == 4) {
                let packet = Ipv4Packet::new_checked(packet).expect("a packet");
                let segment = TcpPacket::new_checked(packet.payload()).expect("a segment");
                self.local_port = segment.src_port();
                self.expects = segment.ack_number();
                self.has_sent = segment.seq_number() + segment.segment_len();
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += StackDuration::from_millis(millis);
        self.fill();
    }

    fn segment(&self, control: TcpControl, sequence: i32, payload: &[u8]) -> TcpSegment {
        let sequence = TcpSeqNumber(self.expects.0.wrapping_add(sequence));
        TcpSegment {
            ports: (self.port, self.local_port),
            control,
            sequence,
            acknowledges: Some(self.has_sent),
            window: 1000,
            scale: Some(7),
            segment_bytes: Some(1240),
            payload: payload.to_vec(),
        }
    }

    fn syn(&self) -> TcpSegment {
        TcpSegment { acknowledges: None, ..self.segment(TcpControl::Syn, 0, b"") }
    }

    fn handshake(&mut self) {
        self.receive(&[self.syn().bytes()]);
        assert_eq!(self.fill(), 1);
        self.receive(&[self.segment(TcpControl::None, 0, b"").bytes()]);
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Segment { control, sequence, acknowledges, window, length } => {
                let plain = self.segment(*control, *sequence, &vec![1; *length]);
                let acknowledges = acknowledges.map(|offset| self.has_sent.0.wrapping_add(offset));
                let acknowledges = acknowledges.map(TcpSeqNumber);
                self.receive(&[TcpSegment { acknowledges, window: *window, ..plain }.bytes()]);
            }
            Action::Options { scale, segment_bytes } => {
                let (scale, segment_bytes) = (*scale, *segment_bytes);
                self.receive(&[TcpSegment { scale, segment_bytes, ..self.syn() }.bytes()]);
            }
            Action::Burst(count) => self.receive(&self.burst(*count)),
            Action::Fill => drop(self.fill()),
            Action::Wait(millis) => self.wait(*millis),
            Action::Accept | Action::Connect if self.held.is_some() => {}
            Action::Accept => {
                let accepted = self.inner.poll_accept(self.listener, Waker::noop());
                if let Poll::Ready(accepted) = accepted {
                    self.held = Some(accepted.expect("the stack is open").0);
                }
            }
            Action::Connect => {
                let connecting = self.inner.connect(None, at(A4, self.port), self.now);
                self.held = Some(connecting.expect("a port is free").0);
            }
            Action::Write(_) | Action::Read(_) | Action::ShutDown | Action::LetGo => {
                self.held.into_iter().for_each(|id| self.use_connection(id, action));
            }
        }
    }

    fn use_connection(&mut self, id: ConnectionId, action: &Action) {
        let waker = Waker::noop();
        if let Action::Write(length) = action {
            drop(self.inner.poll_write(id, &vec![2; *length], waker, self.now));
        }
        if let Action::Read(length) = action {
            let mut bytes = vec![0; *length];
            drop(self.inner.poll_read(id, &mut ReadBuf::new(&mut bytes), waker, self.now));
        }
        if let Action::ShutDown = action {
            self.inner.shut_down(id, self.now);
        }
        if let Action::LetGo = action {
            self.inner.let_go(id, self.now);
            self.held = None;
        }
    }

    fn burst(&self, count: usize) -> Vec<Vec<u8>> {
        let offsets = (0..count).map(|index| i32::try_from(index * 1200).expect("a small burst"));
        let full = |offset| self.segment(TcpControl::None, offset, &[3; 1200]).bytes();
        offsets.map(full).collect()
    }

    /// After a while nothing is left of what nobody holds.
    fn assert_nothing_stays(&mut self) {
        self.act(&Action::LetGo);
        for _ in 0..30 {
            self.wait(10_000);
        }
        assert_eq!(self.inner.connection_count(), 0);
    }
}

/// A segment with all that a peer can choose.
#[derive(Debug, Clone)]
struct TcpSegment {
    ports: (u16, u16),
    control: TcpControl,
    sequence: TcpSeqNumber,
    acknowledges: Option<TcpSeqNumber>,
    window: u16,
    scale: Option<u8>,
    segment_bytes: Option<u16>,
    payload: Vec<u8>,
}

impl TcpSegment {
    fn bytes(&self) -> Vec<u8> {
        let is_syn = self.control == TcpControl::Syn;
        let tcp = TcpRepr {
            src_port: self.ports.0,
            dst_port: self.ports.1,
            control: self.control,
            seq_number: self.sequence,
            ack_number: self.acknowledges,
            window_len: self.window,
            window_scale: self.scale.filter(|_| is_syn),
            max_seg_size: self.segment_bytes.filter(|_| is_syn),
            sack_permitted: is_syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &self.payload,
        };
        let ends: [IpAddress; 2] = [A4, B4].map(|ip| IpAddress::from(at(ip, 0).ip()));
        let ip = IpRepr::new(ends[0], ends[1], IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut packet = vec![0; ip.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut packet[..], &checksums);
        let mut payload = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut payload, &ends[0], &ends[1], &checksums);
        packet
    }
}

fn any_control() -> impl Strategy<Value = TcpControl> {
    use TcpControl::{Fin, None, Psh, Rst, Syn};
    prop_oneof![6 => Just(None), 1 => Just(Psh), 1 => Just(Syn), 2 => Just(Fin), 1 => Just(Rst)]
}

/// Distances that lie about the edges of something.
fn any_offset() -> impl Strategy<Value = i32> {
    let edges = [0, 1 << 16, 1 << 18, 1 << 19, i32::MIN, i32::MAX];
    let near = (proptest::sample::select(edges.to_vec()), -2..3_i32);
    prop_oneof![
        6 => Just(0),
        2 => near.prop_map(|(edge, distance)| edge.wrapping_add(distance)),
        2 => -3000..3000_i32,
        1 => any::<i32>(),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    let segment = (
        any_control(),
        any_offset(),
        proptest::option::weighted(0.9, any_offset()),
        prop_oneof![Just(0), Just(1), Just(u16::MAX), any::<u16>()],
        prop_oneof![Just(0), Just(1), 0..2000_usize],
    );
    let segment = segment.prop_map(|(control, sequence, acknowledges, window, length)| {
        Action::Segment { control, sequence, acknowledges, window, length }
    });
    let scale = proptest::option::of(any::<u8>());
    let options = (scale, proptest::option::of(prop_oneof![0..600_u16, any::<u16>()]))
        .prop_map(|(scale, segment_bytes)| Action::Options { scale, segment_bytes });
    prop_oneof![
        12 => segment,
        1 => options,
        1 => (1..450_usize).prop_map(Action::Burst),
        6 => Just(Action::Fill),
        2 => prop_oneof![1..100_u64, 1000..20_000_u64].prop_map(Action::Wait),
        1 => Just(Action::Accept),
        1 => Just(Action::Connect),
        3 => (0..300_000_usize).prop_map(Action::Write),
        3 => (0..300_000_usize).prop_map(Action::Read),
        1 => Just(Action::ShutDown),
        1 => Just(Action::LetGo),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_segments_does_harm(
        begins_established in any::<bool>(),
        actions in vec(any_action(), 1..50),
    ) {
        let mut scene = Scene::new();
        if begins_established {
            scene.handshake();
            scene.act(&Action::Accept);
        }
        for action in &actions {
            scene.act(action);
        }
        scene.assert_nothing_stays();
    }

    #[test]
    fn garbage_does_no_harm(
        garbage in vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(None), Just(Some(0x45)), Just(Some(0x60))],
        protocol in prop_oneof![Just(0), Just(1), Just(6), Just(17), Just(58), any::<u8>()],
    ) {
        let mut packet = garbage;
        if let Some(version) = version && packet.len() >= 48 {
            let length = u16::try_from(packet.len()).expect("it is short");
            packet[0] = version;
            if version == 0x45 {
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[6..8].fill(0);
                packet[9] = protocol;
            } else {
                packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                packet[6] = protocol;
            }
        }
        let mut scene = Scene::new();
        scene.receive(&[packet]);
        let mut batch = PacketBatch::new();
        scene.inner.fill(&mut batch, scene.now);
        prop_assert!(batch.len() <= 1);
        prop_assert_eq!(scene.inner.connection_count(), 0);
    }

    #[test]
    fn damaged_segment_opens_nothing(position in 0..44_usize, flip in 1..=255_u8) {
        let mut scene = Scene::new();
        let mut packet = scene.syn().bytes();
        packet[position] ^= flip;
        scene.receive(&[packet]);
        // Of what is flipped, checksums leave nothing unseen but the fields that are not covered.
        prop_assert_eq!(scene.inner.connection_count(), 0);
    }
}

#[test]
fn peer_cannot_fill_more_than_the_buffer() {
    let mut scene = Scene::new();
    scene.handshake();
    // The stack's window has only been said in its SYN yet, where it is not scaled.
    scene.receive(&[scene.segment(TcpControl::None, 300_000, &[3; 1200]).bytes()]);
    scene.receive(&scene.burst(450));
    scene.act(&Action::Accept);
    let mut bytes = vec![0; 1 << 20];
    let mut buffer = ReadBuf::new(&mut bytes);
    let id = scene.held.expect("a connection");
    let read = scene.inner.poll_read(id, &mut buffer, Waker::noop(), scene.now);
    assert!(matches!(read, Poll::Ready(Ok(()))));
    let read = buffer.filled().len();
    assert_eq!(read, 32 * 1024);
    scene.assert_nothing_stays();
}

#[test]
fn limits_hold_under_a_flood_of_syns() {
    let mut scene = Scene::new();
    let others: Vec<_> = (1..4)
        .map(|port| scene.inner.listen(Network::Tcp, None, PORT + port).expect("it is free"))
        .collect();
    let flood = |scene: &mut Scene, local_port| {
        for port in 1..=1000 {
            let syn = TcpSegment { ports: (port, local_port), ..scene.syn() };
            scene.receive(&[syn.bytes()]);
        }
        scene.inner.connection_count()
    };
    assert_eq!(flood(&mut scene, PORT), 128);
    assert_eq!(flood(&mut scene, PORT + 1), 256);
    assert_eq!(flood(&mut scene, PORT + 2), 256);
    scene.wait(9_000);
    assert_eq!(scene.inner.connection_count(), 256);
    scene.wait(1_001);
    scene.wait(1);
    assert_eq!(scene.inner.connection_count(), 0);
    for key in others.into_iter().chain([scene.listener]) {
        assert_eq!(scene.inner.listeners.backlog(key), 0);
    }
    scene.port = 5000;
    scene.local_port = PORT;
    scene.handshake();
    scene.act(&Action::Accept);
    assert!(scene.held.is_some(), "honest peers get through again");
}

#[test]
fn connections_are_limited() {
    let now = StackInstant::from_millis(1000);
    let addresses = vec![at(B4, 0).ip()];
    let mut inner =
        Inner::new(&Config { addresses, tcp_buffer_bytes: 0, ..Config::default() }, 7, now);
    for _ in 0..4096 {
        inner.connect(None, at(A4, 80), now).expect("there is room");
    }
    let refused = inner.connect(None, at(A4, 80), now).expect_err("there is none");
    assert_eq!(refused.kind(), std::io::ErrorKind::QuotaExceeded);
    let listener = inner.listen(Network::Tcp, None, PORT).expect("it is free");
    inner.handle_packet(&Scene::new().syn().bytes(), now);
    assert_eq!(inner.listeners.backlog(listener), 0);
}

#[test]
fn repeated_fin_is_acknowledged_after_the_connection_is_gone() {
    let mut scene = Scene::new();
    scene.handshake();
    scene.act(&Action::Accept);
    scene.act(&Action::LetGo);
    assert_eq!(scene.fill(), 1);
    let fin = scene.segment(TcpControl::Fin, 0, b"");
    scene.receive(&[fin.bytes()]);
    assert_eq!(scene.fill(), 1);
    assert_eq!(scene.inner.connection_count(), 0);
    let acknowledged = (scene.expects, scene.has_sent);
    assert_eq!(acknowledged.0, fin.sequence + 1);
    scene.wait(9_000);
    scene.receive(&[fin.bytes()]);
    assert_eq!(scene.fill(), 1);
    assert_eq!((scene.expects, scene.has_sent), acknowledged);
    // A new connection between the same ports may begin at once.
    scene.handshake();
    scene.act(&Action::Accept);
    assert!(scene.held.is_some());
}

#[test]
fn echo_request_to_an_own_address_is_answered() {
    let mut scene = Scene::new();
    let check = |scene: &mut Scene, from: &str, to: &str, is_answered: bool| {
        scene.receive(&[echo_request(at(from, 0).ip(), at(to, 0).ip())]);
        let mut batch = PacketBatch::new();
        scene.inner.fill(&mut batch, scene.now);
        assert_eq!(batch.len(), usize::from(is_answered), "{to}");
    };
    check(&mut scene, A4, B4, true);
    check(&mut scene, A6, B6, true);
    check(&mut scene, A4, "192.0.2.7", false);
    check(&mut scene, A4, "224.0.0.1", false);
}

fn echo_request(from: IpAddr, to: IpAddr) -> Vec<u8> {
    use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};
    let checksums = ChecksumCapabilities::default();
    let (ident, seq_no, data) = (1, 2, &b"are you there?"[..]);
    let v4 = Icmpv4Repr::EchoRequest { ident, seq_no, data };
    let v6 = Icmpv6Repr::EchoRequest { ident, seq_no, data };
    let ends = (IpAddress::from(from), IpAddress::from(to));
    let is_v4 = ends.0.version() == IpVersion::Ipv4;
    let protocol = if is_v4 { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    let ip = IpRepr::new(ends.0, ends.1, protocol, v4.buffer_len(), 64);
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(&mut packet[..], &checksums);
    let payload = &mut packet[ip.header_len()..];
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) {
        v6.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
    } else {
        v4.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
    }
    packet
}
