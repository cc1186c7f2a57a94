//! Connections that are over and whose peer might not know: their ports rest for a while.
//!
//! The connection itself with its buffers is gone by then. What the peer may still send is its FIN once more,
//! when the acknowledgement was lost, and all that the answer needs is in that segment.

use std::collections::{HashMap, VecDeque};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use crate::batch::PacketBatch;
use crate::packet::{Flow, Segment};

/// How long a flow rests: as long as smoltcp waits.
const REST: Duration = Duration::from_secs(10);

/// Most flows at rest; with more the one that rests longest is forgotten.
const FLOWS_MAX: usize = 4096;

/// The flows at rest.
#[derive(Debug, Default)]
pub(crate) struct TimeWait {
    until: HashMap<Flow, Instant>,
    /// In the order in which they end; one that was woken stays here until then.
    order: VecDeque<(Instant, Flow)>,
}

impl TimeWait {
    /// Lets `flow` rest.
    pub(crate) fn insert(&mut self, flow: Flow, now: Instant) {
        self.forget(now);
        let until = now + REST;
        self.until.insert(flow, until);
        self.order.push_back((until, flow));
    }

    /// Whether `flow` rests.
    pub(crate) fn contains(&self, flow: &Flow, now: Instant) -> bool {
        self.until.get(flow).is_some_and(|until| *until > now)
    }

    /// Ends the rest of `flow`: its peer has begun anew.
    pub(crate) fn remove(&mut self, flow: &Flow) {
        self.until.remove(flow);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, flow)) = self.order.front().copied() {
            if until > now && self.order.len() < FLOWS_MAX {
                return;
            }
            self.order.pop_front();
            if self.until.get(&flow) == Some(&until) {
                self.until.remove(&flow);
            }
        }
    }
}

/// Acknowledges a FIN that came again.
pub(crate) fn acknowledge(segment: &Segment, outgoing: &mut PacketBatch) {
    let Some(sequence) = segment.acknowledges.filter(|_| segment.is_fin) else { return };
    let (local, remote) = (segment.flow.local, segment.flow.remote);
    let (source, destination) = (IpAddress::from(local.ip()), IpAddress::from(remote.ip()));
    let tcp = empty_segment(segment, sequence);
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let checksums = ChecksumCapabilities::default();
    outgoing.push_with(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &checksums);
        let mut payload = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut payload, &source, &destination, &checksums);
    });
}

fn empty_segment(segment: &Segment, sequence: TcpSeqNumber) -> TcpRepr<'static> {
    TcpRepr {
        src_port: segment.flow.local.port(),
        dst_port: segment.flow.remote.port(),
        control: TcpControl::None,
        seq_number: sequence,
        ack_number: Some(segment.end),
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

    fn flow(port: u16) -> Flow {
        let end = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Flow { local: end(80), remote: end(port) }
    }

    #[test]
    fn flow_rests_for_ten_seconds_unless_it_is_woken() {
        let now = Instant::from_millis(1000);
        let mut time_wait = TimeWait::default();
        time_wait.insert(flow(1), now);
        time_wait.insert(flow(2), now);
        time_wait.remove(&flow(2));
        assert!(time_wait.contains(&flow(1), now + Duration::from_millis(9_999)));
        assert!(!time_wait.contains(&flow(1), now + REST));
        assert!(!time_wait.contains(&flow(2), now));
        let later = now + Duration::from_millis(5_000);
        time_wait.insert(flow(2), later);
        time_wait.insert(flow(3), now + REST);
        assert!(time_wait.contains(&flow(2), now + REST));
        assert_eq!((time_wait.until.len(), time_wait.order.len()), (2, 2));
    }

    #[test]
    fn oldest_are_forgotten_when_too_many_rest() {
        let now = Instant::from_millis(1000);
        let mut time_wait = TimeWait::default();
        (1..=5000).for_each(|port| time_wait.insert(flow(port), now));
        assert_eq!((time_wait.until.len(), time_wait.order.len()), (FLOWS_MAX, FLOWS_MAX));
        assert!(!time_wait.contains(&flow(904), now));
        assert!(time_wait.contains(&flow(905), now));
    }
}
