//! What a node sent a short while ago, so that the answers come back in.
//!
//! Only UDP and SCTP need it: a TCP segment and an ICMP message tell by themselves that they are answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::packet::{Packet, Transport};
use crate::recent::Recent;

/// Flows that are remembered at most, in less than a MiB; the half of them that was used last is never forgotten
/// before its time.
///
/// A stock client remembers the last 512, however old. A resolver or a crawler opens that many in a second, and then
/// waits for answers in vain; with this many it hears what comes within some seconds.
pub const FLOWS_MAX: usize = 4096;

/// How long a flow lets answers in after the last packet in either direction.
///
/// Source: RFC 4787, REQ-5, recommends it for address translators, which every protocol over UDP lives with.
pub const FLOW_IDLE: Duration = Duration::from_mins(5);

/// The flows that a node's own packets opened.
///
/// They outlive a change of the [`Filter`](crate::Filter): as with TCP, a policy that is taken away refuses what is
/// opened from then on, not what runs. Who wants to refuse that too starts with empty flows.
#[derive(Debug)]
pub struct Flows {
    used_at: Recent<Flow, Instant>,
}

impl Flows {
    /// No flows.
    pub fn new() -> Self {
        Self { used_at: Recent::new(FLOWS_MAX / 2) }
    }

    /// Opens the way for answers to a packet that the node sends to a peer.
    ///
    /// Whatever makes packets must call it, the userspace stack too: a packet that leaves unnoticed gets no answer.
    pub fn note_outgoing(&mut self, packet: &Packet, now: Instant) {
        if let Some(flow) = Flow::new(packet.transport, packet.source, packet.destination) {
            self.note(flow, now);
        }
    }

    /// Whether a packet from a peer belongs to a flow; if so, the flow goes on from here.
    pub(crate) fn admit(&mut self, packet: &Packet, now: Instant) -> bool {
        let Some(flow) = Flow::new(packet.transport, packet.destination, packet.source) else {
            return false;
        };
        let used_at = self.used_at.peek(&flow);
        let is_open = used_at.is_some_and(|at| now.saturating_duration_since(*at) <= FLOW_IDLE);
        if is_open {
            self.note(flow, now);
        }
        is_open
    }

    fn note(&mut self, flow: Flow, now: Instant) {
        *self.used_at.get_or_insert_with(flow, || now) = now;
    }
}

impl Default for Flows {
    fn default() -> Self {
        Self::new()
    }
}

/// Packets in both directions between two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    transport: Transport,
    here: SocketAddr,
    there: SocketAddr,
}

impl Flow {
    fn new(transport: Transport, here: SocketAddr, there: SocketAddr) -> Option<Self> {
        match transport {
            Transport::Udp | Transport::Sctp => Some(Self { transport, here, there }),
            Transport::Tcp { .. }
            | Transport::Icmp(_)
            | Transport::Tsmp
            | Transport::LaterFragment
            | Transport::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(transport: Transport, source: &str, destination: &str) -> Packet {
        let [source, destination] =
            [source, destination].map(|text| text.parse().expect("sockets"));
        Packet { source, destination, transport }
    }

    /// A packet goes out at once, another comes in after a while.
    fn check(out: Packet, after: Duration, back: Packet, expected: bool) {
        let now = Instant::now();
        let mut flows = Flows::new();
        flows.note_outgoing(&out, now);
        assert_eq!(flows.admit(&back, now + after), expected, "{out:?} {back:?}");
    }

    #[test]
    fn only_the_answer_to_a_packet_comes_in() {
        let (ours, theirs) = ("10.0.0.1:1000", "10.0.0.2:53");
        for transport in [Transport::Udp, Transport::Sctp] {
            let out = packet(transport, ours, theirs);
            check(out, Duration::ZERO, packet(transport, theirs, ours), true);
            check(out, Duration::ZERO, out, false);
            check(out, Duration::ZERO, packet(transport, "10.0.0.2:54", ours), false);
            check(out, Duration::ZERO, packet(transport, "10.0.0.3:53", ours), false);
            check(out, Duration::ZERO, packet(transport, theirs, "10.0.0.1:1001"), false);
        }
        let out = packet(Transport::Udp, ours, theirs);
        check(out, Duration::ZERO, packet(Transport::Sctp, theirs, ours), false);
        let out = packet(Transport::Tcp { is_syn: true }, ours, theirs);
        check(out, Duration::ZERO, packet(Transport::Tcp { is_syn: true }, theirs, ours), false);
    }

    #[test]
    fn expired_flow_lets_nothing_in() {
        let out = packet(Transport::Udp, "[fd7a::1]:1000", "[fd7a::2]:53");
        let back = packet(Transport::Udp, "[fd7a::2]:53", "[fd7a::1]:1000");
        check(out, FLOW_IDLE, back, true);
        check(out, FLOW_IDLE + Duration::from_nanos(1), back, false);
    }

    #[test]
    fn answers_keep_a_flow_open() {
        let start = Instant::now();
        let mut flows = Flows::default();
        flows.note_outgoing(&packet(Transport::Udp, "10.0.0.1:1", "10.0.0.2:2"), start);
        let back = packet(Transport::Udp, "10.0.0.2:2", "10.0.0.1:1");
        for times in 1..4 {
            assert!(flows.admit(&back, start + FLOW_IDLE * times));
        }
        assert!(!flows.admit(&back, start + FLOW_IDLE * 5));
    }

    #[test]
    fn the_flows_used_last_stay_when_there_are_too_many() {
        let now = Instant::now();
        let mut flows = Flows::new();
        let ports = 1..=2 * u16::try_from(FLOWS_MAX).expect("fewer than ports");
        let socket = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let there: SocketAddr = "10.0.0.2:53".parse().expect("a socket");
        for port in ports.clone() {
            let transport = Transport::Udp;
            let out = Packet { source: socket(port), destination: there, transport };
            flows.note_outgoing(&out, now);
        }
        let open: Vec<bool> = ports
            .map(|port| Flow { transport: Transport::Udp, here: socket(port), there })
            .map(|flow| flows.used_at.peek(&flow).is_some())
            .collect();
        assert!(open.iter().rev().take(FLOWS_MAX / 2).all(|open| *open));
        assert!(open.iter().filter(|open| **open).count() <= FLOWS_MAX);
    }
}
