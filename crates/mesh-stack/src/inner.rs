//! The stack itself, without a lock and without a clock: packets in, packets out, and what is between.

mod arrivals;
mod programs;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::task::Waker;

use smoltcp::iface::{self, Interface, SocketSet};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::HardwareAddress;

use crate::batch::PacketBatch;
use crate::config::Config;
use crate::connection::Phase;
use crate::connections::{ConnectionId, Connections};
use crate::device::Wire;
use crate::fallback::Fallbacks;
use crate::listen::Listeners;
use crate::packet::{self, Flow, Incoming, Segment};
use crate::ping::Pings;
use crate::tcp::Outlook;
use crate::time_wait::TimeWait;
use crate::udp::UdpTable;

/// Most packets that sockets put into one batch: it stays within a cache.
const BATCH_PACKETS_MAX: usize = 64;

/// Most packets of one connection before it is the next one's turn.
const TURN_PACKETS_MAX: usize = 16;

/// Most answers (RST, ACK, echo) that wait for the way out; with more, answers are lost, as on any network.
const ANSWERS_MAX: usize = 256;

/// When a connection that wants to send and does not is asked again. None should; if one does, it costs
/// little.
const STUCK_RETRY: Duration = Duration::from_millis(10);

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was for somebody here, or would have been if there were room.
    Taken,
    /// Nobody here waits for it.
    Unwanted {
        /// Who has sent it, if it is worth looking at.
        from: Option<IpAddr>,
        /// Whether hosts say so.
        is_answered: bool,
    },
}

/// The state of a stack.
pub(crate) struct Inner {
    interface: Interface,
    /// For packets that no socket wants: smoltcp answers them.
    nobody: SocketSet<'static>,
    mtu: usize,
    buffer_bytes: usize,
    pub(crate) addresses: Vec<IpAddr>,
    connections: Connections,
    pub(crate) listeners: Listeners<ConnectionId>,
    fallbacks: Fallbacks,
    pub(crate) pings: Pings,
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
    /// For first sequence numbers that nobody guesses.
    secret: RandomState,
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
        let mut wire = Wire { incoming: None, outgoing: &mut answers, packets_max: 0, mtu };
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
            fallbacks: Fallbacks::default(),
            pings: Pings::default(),
            udp: UdpTable::new(mtu),
            time_wait: TimeWait::default(),
            half_open: 0,
            answers,
            ready: VecDeque::new(),
            touched: Vec::new(),
            consumer: None,
            sleeps_until: None,
            secret: RandomState::new(),
            next_port: usize::from(seed.to_le_bytes()[0]) << 6,
            is_closed: false,
        }
    }

    /// Takes a packet in, and answers it if nobody waits for it, as hosts do. Call
    /// [`settle_touched`](Self::settle_touched) after the last one of a batch.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        if let Fate::Unwanted { is_answered: true, .. } = self.take(packet, now) {
            self.answer(packet, now);
        }
    }

    /// Takes a packet in, if somebody waits for it.
    pub(crate) fn take(&mut self, packet: &[u8], now: Instant) -> Fate {
        if self.is_closed {
            return Fate::Taken;
        }
        let (is_taken, from, is_answered) = match packet::parse(packet) {
            None => (false, None, false),
            Some(Incoming::Tcp(segment)) => {
                (self.handle_segment(&segment, now), Some(segment.flow.remote.ip()), true)
            }
            // In the node's own name only, not in that of networks that it routes.
            Some(Incoming::Udp(flow, payload)) => {
                let is_own = self.is_own(flow.local.ip());
                (self.udp.handle(flow, payload, is_own, now), Some(flow.remote.ip()), is_own)
            }
            Some(Incoming::Echo(ends)) => (false, Some(ends.remote), self.is_own(ends.local)),
            Some(Incoming::EchoReply { ends, ident, data }) => {
                (self.pings.handle_reply(ends, ident, data, now), Some(ends.remote), false)
            }
        };
        if is_taken { Fate::Taken } else { Fate::Unwanted { from, is_answered } }
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
        let is_earlier = |at| self.sleeps_until.is_none_or(|until| at < until);
        if !self.answers.is_empty() || self.udp.next_timer().is_some_and(is_earlier) {
            self.wake_consumer();
        }
    }

    /// Puts what is to be sent into `batch`.
    pub(crate) fn fill(&mut self, batch: &mut PacketBatch, now: Instant) {
        self.consumer = None;
        while let Some(id) = self.connections.pop_timer(now) {
            self.make_ready(id);
        }
        self.udp.handle_timeout(now);
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
        let timers = [self.connections.next_timer(), self.udp.next_timer()];
        self.sleeps_until = timers.into_iter().flatten().min();
        self.sleeps_until
    }

    /// Ends everything: nobody takes packets any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.phase == Phase::Held {
                connection.tcp.abort(Some(io::ErrorKind::NetworkDown));
            } else {
                self.forget(id);
            }
        }
        self.listeners.wake_all();
        self.udp.wake_all();
        self.pings.wake_all();
    }

    /// The number of connections, those included that nobody has any more.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether an address is one of the node's.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Lets smoltcp answer a packet that nobody wants.
    pub(crate) fn answer(&mut self, packet: &[u8], now: Instant) {
        let mut wire = Wire {
            incoming: Some(packet),
            outgoing: &mut self.answers,
            packets_max: ANSWERS_MAX,
            mtu: self.mtu,
        };
        self.interface.poll_ingress_single(now, &mut wire, &mut self.nobody);
    }

    /// Takes a segment in, if there is somebody for it: its connection, one that has ended a while ago, a listener.
    fn handle_segment(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        let known = self.connections.find(&segment.flow);
        if known.is_none() && self.time_wait.contains(&segment.flow, now) {
            if !segment.opens() {
                if self.answers.len() < ANSWERS_MAX {
                    self.time_wait.answer(segment, &mut self.answers, now);
                }
                return true;
            }
            self.time_wait.remove(&segment.flow);
        }
        let id = if let Some(id) = known {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.tcp.handle(&segment.tcp, now);
                if self.answers.len() < ANSWERS_MAX {
                    connection.tcp.poll_acknowledgement(&mut self.answers, now);
                }
            }
            Some(id)
        } else {
            let Some(listener) = self.listener_for(segment) else { return false };
            self.admit(listener, segment, now)
        };
        if let Some((id, connection)) = id.and_then(|id| Some((id, self.connections.get_mut(id)?)))
            && !std::mem::replace(&mut connection.is_touched, true)
        {
            self.touched.push(id);
        }
        true
    }

    /// The first sequence number of a connection.
    ///
    /// Source: RFC 6528.
    fn first_sequence(&self, flow: &Flow, now: Instant) -> u32 {
        let [.., b3, b2, b1, b0] = self.secret.hash_one(flow).to_be_bytes();
        // It goes on by time, so that a connection's numbers are not those of the one before it.
        let [.., t3, t2, t1, t0] = (now.total_micros() / 4).to_be_bytes();
        u32::from_be_bytes([b3, b2, b1, b0]).wrapping_add(u32::from_be_bytes([t3, t2, t1, t0]))
    }

    /// Lets one connection make packets.
    fn emit(&mut self, id: ConnectionId, batch: &mut PacketBatch, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_ready = false;
        let packets_max = BATCH_PACKETS_MAX.min(batch.len() + TURN_PACKETS_MAX);
        while batch.len() < packets_max && connection.tcp.poll_packet(batch, now) {}
    }

    /// Looks at a connection after something has happened to it. `is_stuck`: it was asked for packets and
    /// had none.
    fn settle(&mut self, id: ConnectionId, now: Instant, is_stuck: bool) {
        self.hand_over(id, now);
        self.enforce_deadline(id, now);
        self.connections.adapt(id, self.buffer_bytes, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.review(now) {
            Outlook::At(at) if at > now => self.set_timer(id, at),
            Outlook::At(_) if is_stuck => self.set_timer(id, now + STUCK_RETRY),
            Outlook::At(_) => self.make_ready(id),
            Outlook::Over { must_rest } => self.finish(id, must_rest, now),
        }
    }

    /// A connection exchanges no packets any more, but a program may still read from it.
    fn finish(&mut self, id: ConnectionId, must_rest: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (flow, ends) = (connection.flow, connection.tcp.ends());
        let (deadline, is_wanted) = (connection.deadline, connection.is_wanted());
        if must_rest && self.connections.find(&flow) == Some(id) {
            self.time_wait.insert(flow, ends, now);
        }
        if !is_wanted {
            return self.forget(id);
        }
        self.connections.unlink(id);
        if let Some(deadline) = deadline {
            self.set_timer(id, deadline);
        }
    }

    fn enforce_deadline(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.deadline.is_some_and(|deadline| deadline <= now) {
            connection.deadline = None;
            connection.tcp.abort(None);
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
        match (before, phase) {
            (_, Phase::Arriving(key)) => {
                self.half_open += 1;
                self.listeners.announce(key);
            }
            (Phase::Arriving(_), Phase::Waiting(key)) => self.listeners.push(key, id),
            (Phase::Arriving(key) | Phase::Waiting(key), _) => self.listeners.withdraw(key, id),
            (Phase::Held | Phase::Orphaned, _) => {}
        }
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
