//! Connections that are over and whose peer might not know: their ports rest for a while.
//!
//! The connection itself with its buffers is gone by then. What the peer may still send is what it sent last once more,
//! when the acknowledgement was lost, and all that the answer needs is where both ends have stopped.

use std::collections::{HashMap, VecDeque};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use crate::batch::PacketBatch;
use crate::packet::{Flow, Segment};

/// How long a flow rests: as long as on Linux, so that a peer that waits ever longer before it tries again finds it.
const REST: Duration = Duration::from_secs(60);

/// Most flows at rest; with more the one that rests longest is forgotten.
const FLOWS_MAX: usize = 4096;

/// The flows at rest.
#[derive(Debug, Default)]
pub(crate) struct TimeWait {
    rests: HashMap<Flow, Rest>,
    /// In the order in which they end; one that was woken stays here until then.
    order: VecDeque<(Instant, Flow)>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    ends: Ends,
}

/// Where a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The number behind the own FIN.
    pub(crate) sent: TcpSeqNumber,
    /// The number behind the peer's.
    pub(crate) received: TcpSeqNumber,
}

impl TimeWait {
    /// Lets `flow` rest.
    pub(crate) fn insert(&mut self, flow: Flow, ends: Ends, now: Instant) {
        self.forget(now);
        let until = now + REST;
        self.rests.insert(flow, Rest { until, ends });
        self.order.push_back((until, flow));
    }

    /// Answers a segment of a flow at rest with where it has ended, if the peer sends again what it has sent. From
    /// then on it rests anew.
    pub(crate) fn answer(
        &mut self,
        segment: &Segment<'_>,
        outgoing: &mut PacketBatch,
        now: Instant,
    ) {
        let Some(Rest { ends, .. }) = self.rests.get(&segment.flow).copied() else { return };
        let is_again = segment.tcp.control != TcpControl::Rst && segment.tcp.segment_len() > 0;
        if is_again {
            self.insert(segment.flow, ends, now);
            write(segment.flow, ends, outgoing);
        }
    }

    /// Whether `flow` rests.
    pub(crate) fn contains(&self, flow: &Flow, now: Instant) -> bool {
        self.rests.get(flow).is_some_and(|rest| rest.until > now)
    }

    /// Ends the rest of `flow`: its peer has begun anew.
    pub(crate) fn remove(&mut self, flow: &Flow) {
        self.rests.remove(flow);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, flow)) = self.order.front().copied() {
            if until > now && self.order.len() < FLOWS_MAX {
                return;
            }
            self.order.pop_front();
            if self.rests.get(&flow).is_some_and(|rest| rest.until == until) {
                self.rests.remove(&flow);
            }
        }
    }
}

fn write(Flow { local, remote }: Flow, ends: Ends, outgoing: &mut PacketBatch) {
    let (source, destination) = (IpAddress::from(local.ip()), IpAddress::from(remote.ip()));
    let tcp = empty_segment(local.port(), remote.port(), ends);
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let checksums = ChecksumCapabilities::default();
    outgoing.push_with(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &checksums);
        let mut payload = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut payload, &source, &destination, &checksums);
    });
}

fn empty_segment(src_port: u16, dst_port: u16, ends: Ends) -> TcpRepr<'static> {
    TcpRepr {
        src_port,
        dst_port,
        control: TcpControl::None,
        seq_number: ends.sent,
        ack_number: Some(ends.received),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    const ENDS: Ends = Ends { sent: TcpSeqNumber(1), received: TcpSeqNumber(2) };

    fn flow(port: u16) -> Flow {
        let end = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Flow { local: end(80), remote: end(port) }
    }

    #[test]
    fn flow_rests_for_a_minute_unless_it_is_woken() {
        let now = Instant::from_millis(1000);
        let mut time_wait = TimeWait::default();
        time_wait.insert(flow(1), ENDS, now);
        time_wait.insert(flow(2), ENDS, now);
        time_wait.remove(&flow(2));
        assert!(time_wait.contains(&flow(1), now + Duration::from_millis(59_999)));
        assert!(!time_wait.contains(&flow(1), now + REST));
        assert!(!time_wait.contains(&flow(2), now));
        let later = now + Duration::from_millis(5_000);
        time_wait.insert(flow(2), ENDS, later);
        time_wait.insert(flow(3), ENDS, now + REST);
        assert!(time_wait.contains(&flow(2), now + REST));
        assert_eq!((time_wait.rests.len(), time_wait.order.len()), (2, 2));
    }

    #[test]
    fn oldest_are_forgotten_when_too_many_rest() {
        let now = Instant::from_millis(1000);
        let mut time_wait = TimeWait::default();
        (1..=5000).for_each(|port| time_wait.insert(flow(port), ENDS, now));
        assert_eq!((time_wait.rests.len(), time_wait.order.len()), (FLOWS_MAX, FLOWS_MAX));
        assert!(!time_wait.contains(&flow(904), now));
        assert!(time_wait.contains(&flow(905), now));
    }

    #[test]
    fn what_is_sent_again_is_answered_by_the_end_and_rests_anew() {
        let now = Instant::from_millis(1000);
        let mut time_wait = TimeWait::default();
        time_wait.insert(flow(1), ENDS, now);
        let mut check = |control, payload: &[u8], after: u64, answers| {
            let tcp = TcpRepr { control, payload, ..empty_segment(1, 80, ENDS) };
            let mut outgoing = PacketBatch::new();
            let now = now + Duration::from_secs(after);
            time_wait.answer(&Segment { flow: flow(1), tcp }, &mut outgoing, now);
            assert_eq!(outgoing.len(), answers, "{control:?}");
            time_wait.contains(&flow(1), now + Duration::from_secs(59))
        };
        assert!(!check(TcpControl::None, b"", 5, 0));
        assert!(!check(TcpControl::Rst, b"", 5, 0));
        assert!(check(TcpControl::Psh, b"bytes", 5, 1));
        assert!(check(TcpControl::Fin, b"", 12, 1));
    }
}
