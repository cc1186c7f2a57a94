//! A connection to a peer that is none of ours: smoltcp's own sockets, which count duplicate acknowledgements, say
//! nothing selectively and have old numbers in their acknowledgements after a retransmission.

use std::task::{Poll, Waker};

use smoltcp::iface::{self, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{HardwareAddress, IpEndpoint, IpListenEndpoint};
use tokio::io::ReadBuf;

use super::{A4, B4, Dice, at, pattern};
use crate::connections::ConnectionId;
use crate::device::Wire;
use crate::inner::Inner;
use crate::listen::Network;
use crate::{Config, PacketBatch};

const MTU: usize = 1280;

/// A peer at `A4` with one socket.
struct Foreign {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    sent: PacketBatch,
}

impl Foreign {
    fn new(now: StackInstant) -> Self {
        let mut sent = PacketBatch::new();
        let mut wire = Wire { incoming: None, outgoing: &mut sent, packets_max: 0, mtu: MTU };
        let settings = iface::Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(settings, &mut wire, now);
        interface.set_any_ip(true);
        let buffer = || tcp::SocketBuffer::new(vec![0; 100_000]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { interface, sockets, handle, sent }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn connect(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let ends = [at(B4, 80), at(A4, 4000)].map(IpEndpoint::from);
        socket.connect(self.interface.context(), ends[0], ends[1]).expect("it can");
    }

    fn listen(&mut self) {
        let end = IpListenEndpoint::from(IpEndpoint::from(at(A4, 80)));
        self.socket().listen(end).expect("it can");
    }

    /// Takes packets, and puts into `sent` what it wants to send.
    fn run(&mut self, packets: &[Vec<u8>], now: StackInstant) {
        let nothing = [None];
        for incoming in packets.iter().map(|packet| Some(packet.as_slice())).chain(nothing) {
            let outgoing = &mut self.sent;
            let mut wire = Wire { incoming, outgoing, packets_max: 1000, mtu: MTU };
            self.interface.poll_ingress_single(now, &mut wire, &mut self.sockets);
            while self.interface.poll_egress(now, &mut wire, &mut self.sockets)
                == PollResult::SocketStateChanged
            {}
        }
    }
}

/// What one end writes and has read.
struct Talk {
    to_write: Vec<u8>,
    written: usize,
    read: Vec<u8>,
    has_ended: bool,
}

impl Talk {
    fn new(length: usize, seed: u8) -> Self {
        Self { to_write: pattern(length, seed), written: 0, read: Vec::new(), has_ended: false }
    }
}

fn talk_ours(inner: &mut Inner, id: ConnectionId, talk: &mut Talk, now: StackInstant) {
    let waker = Waker::noop();
    if talk.written < talk.to_write.len() {
        let written = inner.poll_write(id, &talk.to_write[talk.written..], waker, now);
        if let Poll::Ready(written) = written {
            talk.written += written.expect("it takes bytes");
        }
    } else {
        inner.shut_down(id, now);
    }
    let mut bytes = vec![0; 20_000];
    let mut buffer = ReadBuf::new(&mut bytes);
    if let Poll::Ready(read) = inner.poll_read(id, &mut buffer, waker, now) {
        read.expect("nothing fails");
        talk.has_ended |= buffer.filled().is_empty();
        talk.read.extend_from_slice(buffer.filled());
    }
}

fn talk_foreign(socket: &mut tcp::Socket<'_>, talk: &mut Talk) {
    if talk.written < talk.to_write.len() {
        talk.written += socket.send_slice(&talk.to_write[talk.written..]).unwrap_or(0);
    } else {
        socket.close();
    }
    let mut bytes = vec![0; 20_000];
    match socket.recv_slice(&mut bytes) {
        Ok(length) => talk.read.extend_from_slice(&bytes[..length]),
        Err(error) => talk.has_ended |= error == tcp::RecvError::Finished,
    }
}

fn check(we_connect: bool, hurt_one_in: usize, length: usize) {
    let mut now = StackInstant::from_millis(1000);
    let config = Config { addresses: vec![at(B4, 0).ip()], ..Config::default() };
    let (mut inner, mut foreign) = (Inner::new(&config, 7, now), Foreign::new(now));
    let listener = inner.listen(Network::Tcp, None, 80).expect("it is free");
    let mut id = None;
    if we_connect {
        foreign.listen();
        id = Some(inner.connect(None, at(A4, 80), now).expect("a port is free").0);
    } else {
        foreign.connect();
    }
    let (mut ours, mut theirs) = (Talk::new(length, 1), Talk::new(length, 2));
    let (mut dice, mut batch) = (Dice(5), PacketBatch::new());
    for _ in 0..100_000 {
        batch.clear();
        inner.fill(&mut batch, now);
        let mut kept = |packet: &&[u8]| !packet.is_empty() && !dice.hits_one_in(hurt_one_in);
        let packets: Vec<_> = batch.packets().filter(&mut kept).map(<[u8]>::to_vec).collect();
        foreign.run(&packets, now);
        foreign
            .sent
            .packets()
            .filter(&mut kept)
            .for_each(|packet| inner.handle_packet(packet, now));
        foreign.sent.clear();
        inner.settle_touched(now);
        if let Poll::Ready(Ok((accepted, _))) = inner.poll_accept(listener, Waker::noop()) {
            id = Some(accepted);
        }
        if let Some(id) = id.filter(|_| foreign.socket().may_send() || theirs.written > 0) {
            talk_ours(&mut inner, id, &mut ours, now);
            talk_foreign(foreign.socket(), &mut theirs);
        }
        if ours.has_ended && theirs.has_ended {
            assert!(ours.read == theirs.to_write && theirs.read == ours.to_write);
            return;
        }
        now += StackDuration::from_millis(5);
    }
    panic!("it hangs: {} and {} of {length} read", ours.read.len(), theirs.read.len());
}

#[test]
fn foreign_peer_may_connect_and_be_connected_to() {
    for we_connect in [true, false] {
        check(we_connect, 0, 1_000_000);
    }
}

#[test]
fn foreign_peer_gets_all_over_a_bad_line() {
    for we_connect in [true, false] {
        for hurt_one_in in [200, 50, 10] {
            check(we_connect, hurt_one_in, 200_000);
        }
    }
}
