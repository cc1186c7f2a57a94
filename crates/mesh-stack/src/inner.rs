//! The stack itself, without a lock and without a clock: packets in, packets out, and what is between.

mod arrivals;
mod programs;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::task::Waker;

use smoltcp::iface::{self, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::HardwareAddress;

use crate::batch::PacketBatch;
use crate::config::Config;
use crate::connection::{Connection, Outlook, Phase};
use crate::connections::{ConnectionId, Connections};
use crate::device::Wire;
use crate::listen::Listeners;
use crate::packet::{self, Incoming, Segment};
use crate::sequence::Sequence;
use crate::time_wait::{self, TimeWait};
use crate::udp::UdpTable;

/// Most packets that sockets put into one batch: it stays within a cache.
const BATCH_PACKETS_MAX: usize = 64;

/// Most packets of one connection before it is the next one's turn.
const TURN_PACKETS_MAX: usize = 16;

/// Most answers (RST, ACK, echo) that wait for the way out; with more, answers are lost, as on any network.
const ANSWERS_MAX: usize = 256;

/// A connection may acknowledge after so many segments, also in the middle of a batch: a sender whose window
/// grows per acknowledgement, as smoltcp's does, would hardly get faster otherwise (RFC 9293, 3.8.6.3).
const SEGMENTS_PER_ACK: u32 = 2;

/// When a connection that wants to send and does not is asked again. None should; if one does, it costs
/// little.
const STUCK_RETRY: Duration = Duration::from_millis(10);

/// The state of a stack.
pub(crate) struct Inner {
    interface: Interface,
    /// For packets that no socket wants: smoltcp answers them.
    nobody: SocketSet<'static>,
    mtu: usize,
    buffer_bytes: usize,
    pub(crate) addresses: Vec<IpAddr>,
    connections: Connections,
    pub(crate) listeners: Listeners,
    pub(crate) udp: UdpTable,
    time_wait: TimeWait,
    /// Handshakes under way.
    half_open: usize,
    /// Answers to packets.
    answers: PacketBatch,
    /// Connections that have something to send, each once.
    ready: VecDeque<ConnectionId>,
    /// Connections that got packets in this batch.
    touched: Vec<ConnectionId>,
    /// Who takes packets, while it waits.
    consumer: Option<Waker>,
    /// Until when the consumer sleeps.
    sleeps_until: Option<Instant>,
    /// Where the search for a free port goes on.
    next_port: usize,
    /// Whether nobody takes packets any more.
    pub(crate) is_closed: bool,
}

impl Inner {
    /// Makes an empty stack; `seed` is random.
    pub(crate) fn new(config: &Config, seed: u64, now: Instant) -> Self {
        let mut answers = PacketBatch::new();
        let mtu = config.mtu_bytes();
        let mut settings = iface::Config::new(HardwareAddress::Ip);
        settings.random_seed = seed;
        let mut wire = Wire {
            incoming: None,
            outgoing: &mut answers,
            packets_max: 0,
            mtu,
            sequence: &mut Sequence::default(),
        };
        let mut interface = Interface::new(settings, &mut wire, now);
        // Subnet routes: the node has taken the packet, so it is for us.
        interface.set_any_ip(true);
        Self {
            interface,
            nobody: SocketSet::new(Vec::new()),
            mtu,
            buffer_bytes: config.buffer_bytes(),
            addresses: config.addresses.clone(),
            connections: Connections::default(),
            listeners: Listeners::default(),
            udp: UdpTable::new(mtu),
            time_wait: TimeWait::default(),
            half_open: 0,
            answers,
            ready: VecDeque::new(),
            touched: Vec::new(),
            consumer: None,
            sleeps_until: None,
            next_port: usize::from(seed.to_le_bytes()[0]) << 6,
            is_closed: false,
        }
    }

    /// Takes a packet in. Call [`settle_touched`](Self::settle_touched) after the last one of a batch.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        if self.is_closed {
            return;
        }
        let to_answer = match packet::parse(packet) {
            None => None,
            Some(Incoming::Tcp(segment)) => {
                self.handle_segment(&segment, packet, now);
                None
            }
            Some(Incoming::Udp(flow, payload)) => {
                (!self.udp.handle(flow, payload)).then_some(flow.local.ip())
            }
            Some(Incoming::Echo(address)) => Some(address),
        };
        // In the node's own name only, not in that of networks that it routes.
        if to_answer.is_some_and(|address| self.is_own(address)) {
            self.answer(packet, now);
        }
    }

    /// Looks at each connection that got packets.
    pub(crate) fn settle_touched(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.is_touched = false;
            }
            self.settle(id, now, false);
        }
        self.touched = touched;
        if !self.answers.is_empty() {
            self.wake_consumer();
        }
    }

    /// Puts what is to be sent into `batch`.
    pub(crate) fn fill(&mut self, batch: &mut PacketBatch, now: Instant) {
        self.consumer = None;
        while let Some(id) = self.connections.pop_timer(now) {
            self.make_ready(id);
        }
        batch.append(&mut self.answers);
        self.udp.take_outgoing(batch);
        while batch.len() < BATCH_PACKETS_MAX {
            let Some(id) = self.ready.pop_front() else { break };
            let packets_before = batch.len();
            self.emit(id, batch, now);
            self.settle(id, now, batch.len() == packets_before);
        }
    }

    /// Notes who is to be woken when there is something to send. Returns when there will be, as far as is
    /// known.
    pub(crate) fn wait(&mut self, consumer: &Waker) -> Option<Instant> {
        self.consumer = Some(consumer.clone());
        self.sleeps_until = self.connections.next_timer();
        self.sleeps_until
    }

    /// Ends everything: nobody takes packets any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.phase == Phase::Held {
                connection.failure.get_or_insert(io::ErrorKind::NetworkDown);
                connection.socket_mut().abort();
            } else {
                self.forget(id);
            }
        }
        self.listeners.wake_all();
        self.udp.wake_all();
    }

    /// The number of connections, those included that nobody has any more.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Lets smoltcp answer a packet that no socket wants.
    fn answer(&mut self, packet: &[u8], now: Instant) {
        let mut wire = Wire {
            incoming: Some(packet),
            outgoing: &mut self.answers,
            packets_max: ANSWERS_MAX,
            mtu: self.mtu,
            sequence: &mut Sequence::default(),
        };
        self.interface.poll_ingress_single(now, &mut wire, &mut self.nobody);
    }

    fn handle_segment(&mut self, segment: &Segment, packet: &[u8], now: Instant) {
        let known = self.connections.find(&segment.flow);
        if known.is_none() && self.time_wait.contains(&segment.flow, now) {
            if !segment.opens() {
                if self.answers.len() < ANSWERS_MAX {
                    time_wait::acknowledge(segment, &mut self.answers);
                }
                return;
            }
            self.time_wait.remove(&segment.flow);
        }
        let Some(id) = known.or_else(|| self.admit(segment, packet, now)) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = connection.socket().state();
        let mut wire = Wire {
            incoming: Some(packet),
            outgoing: &mut self.answers,
            packets_max: ANSWERS_MAX,
            mtu: self.mtu,
            sequence: &mut connection.sequence,
        };
        self.interface.poll_ingress_single(now, &mut wire, &mut connection.sockets);
        connection.note_segment(before, segment, now);
        connection.unanswered_segments += 1;
        if connection.unanswered_segments >= SEGMENTS_PER_ACK && !connection.is_silent(now) {
            connection.unanswered_segments = 0;
            let mut exit =
                Exit { batch: &mut self.answers, packets_max: ANSWERS_MAX, mtu: self.mtu };
            exit.send(connection, &mut self.interface, now);
        }
        if !std::mem::replace(&mut connection.is_touched, true) {
            self.touched.push(id);
        }
    }

    /// Lets one connection make packets.
    fn emit(&mut self, id: ConnectionId, batch: &mut PacketBatch, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_ready = false;
        if connection.is_silent(now) {
            return;
        }
        let packets_max = BATCH_PACKETS_MAX.min(batch.len() + TURN_PACKETS_MAX);
        let mut exit = Exit { batch, packets_max, mtu: self.mtu };
        while exit.send(connection, &mut self.interface, now) {}
    }

    /// Looks at a connection after something has happened to it. `is_stuck`: it was asked for packets and
    /// had none.
    fn settle(&mut self, id: ConnectionId, now: Instant, is_stuck: bool) {
        self.hand_over(id, now);
        self.enforce_deadline(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.review(&mut self.interface, now) {
            Outlook::Idle => {}
            Outlook::At(at) if at > now => self.set_timer(id, at),
            Outlook::At(_) if is_stuck => self.set_timer(id, now + STUCK_RETRY),
            Outlook::At(_) => self.make_ready(id),
            Outlook::Finished => {
                let deadline = connection.deadline;
                self.connections.unlink(id);
                if let Some(deadline) = deadline {
                    self.set_timer(id, deadline);
                }
            }
            Outlook::Rests => {
                let flow = connection.flow;
                self.forget(id);
                self.time_wait.insert(flow, now);
            }
            Outlook::Over => self.forget(id),
        }
    }

    fn enforce_deadline(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.deadline.is_some_and(|deadline| deadline <= now) {
            connection.deadline = None;
            connection.socket_mut().abort();
            self.set_phase(id, Phase::Orphaned);
        }
    }

    /// Gives a connection to somebody else and keeps the counts of those that wait.
    fn set_phase(&mut self, id: ConnectionId, phase: Phase) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = std::mem::replace(&mut connection.phase, phase);
        if let Phase::Arriving(_) = before {
            self.half_open -= 1;
        }
        if let Phase::Arriving(_) = phase {
            self.half_open += 1;
        }
        self.listeners.note_change(id, before, phase);
    }

    fn forget(&mut self, id: ConnectionId) {
        self.set_phase(id, Phase::Orphaned);
        self.connections.remove(id);
    }

    fn make_ready(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_back(id);
            self.wake_consumer();
        }
    }

    fn set_timer(&mut self, id: ConnectionId, at: Instant) {
        self.connections.set_timer(id, at);
        if self.sleeps_until.is_none_or(|until| at < until) {
            self.wake_consumer();
        }
    }

    pub(crate) fn wake_consumer(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            consumer.wake();
        }
    }
}

/// Where connections put packets.
struct Exit<'b> {
    batch: &'b mut PacketBatch,
    packets_max: usize,
    mtu: usize,
}

impl Exit<'_> {
    /// Takes a packet of a connection; whether there was one.
    fn send(
        &mut self,
        connection: &mut Connection,
        interface: &mut Interface,
        now: Instant,
    ) -> bool {
        let before = connection.socket().state();
        let mut wire = Wire {
            incoming: None,
            outgoing: self.batch,
            packets_max: self.packets_max,
            mtu: self.mtu,
            sequence: &mut connection.sequence,
        };
        let sent = interface.poll_egress(now, &mut wire, &mut connection.sockets);
        if before != State::Closed && connection.socket().state() == State::Closed {
            connection.failure.get_or_insert(io::ErrorKind::TimedOut);
        }
        sent == PollResult::SocketStateChanged
    }
}
