//! Echo requests, and the answers to them.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
};

use crate::batch::PacketBatch;
use crate::stack::Shared;

/// Most pings under way; with more, asking fails.
const PINGS_MAX: usize = 256;

/// The two addresses of an echo message, the own one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
}

/// The pings under way.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    by_ident: HashMap<u16, Ping>,
}

#[derive(Debug)]
struct Ping {
    ends: Ends,
    /// What the request carries: nobody who has not seen it can answer.
    token: [u8; 8],
    sent_at: Instant,
    latency: Option<Duration>,
    program: Option<Waker>,
}

impl Pings {
    /// Puts a request into `outgoing`; `token` is random. Returns by which number its answer is asked for.
    pub(crate) fn send(
        &mut self,
        ends: Ends,
        token: [u8; 8],
        outgoing: &mut PacketBatch,
        now: Instant,
    ) -> io::Result<u16> {
        if self.by_ident.len() >= PINGS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let first = u16::from_be_bytes([token[0], token[1]]);
        let ident = (0..=u16::MAX).map(|offset| first.wrapping_add(offset));
        let ident = ident.into_iter().find(|ident| !self.by_ident.contains_key(ident));
        let ident = ident.expect("invariant: there are more numbers than pings");
        write_request(ends, ident, &token, outgoing);
        let ping = Ping { ends, token, sent_at: now, latency: None, program: None };
        self.by_ident.insert(ident, ping);
        Ok(ident)
    }

    /// Takes an answer in, if it is one to a ping that is under way.
    pub(crate) fn handle_reply(
        &mut self,
        ends: Ends,
        ident: u16,
        data: &[u8],
        now: Instant,
    ) -> bool {
        let ping = self.by_ident.get_mut(&ident);
        let Some(ping) = ping.filter(|ping| ping.ends == ends && ping.token == data) else {
            return false;
        };
        if ping.latency.is_none() {
            ping.latency = Some(now - ping.sent_at);
            ping.program.take().into_iter().for_each(Waker::wake);
        }
        true
    }

    fn poll(&mut self, ident: u16, program: &Waker) -> Poll<Duration> {
        let Some(ping) = self.by_ident.get_mut(&ident) else { return Poll::Pending };
        if ping.latency.is_none() {
            ping.program = Some(program.clone());
        }
        ping.latency.map_or(Poll::Pending, Poll::Ready)
    }

    pub(crate) fn wake_all(&mut self) {
        let programs = self.by_ident.values_mut().filter_map(|ping| ping.program.take());
        programs.for_each(Waker::wake);
    }
}

fn write_request(ends: Ends, ident: u16, data: &[u8], outgoing: &mut PacketBatch) {
    let checksums = ChecksumCapabilities::default();
    let v4 = Icmpv4Repr::EchoRequest { ident, seq_no: 0, data };
    let v6 = Icmpv6Repr::EchoRequest { ident, seq_no: 0, data };
    let (source, destination) = (IpAddress::from(ends.local), IpAddress::from(ends.remote));
    let protocol = if ends.local.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    // Both families' messages are of the same length.
    let ip = IpRepr::new(source, destination, protocol, v4.buffer_len(), 64);
    outgoing.push_with(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &checksums);
        let message = &mut packet[ip.header_len()..];
        if let (IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) = (source, destination) {
            let mut message = Icmpv6Packet::new_unchecked(message);
            v6.emit(&source, &destination, &mut message, &checksums);
        } else {
            v4.emit(&mut Icmpv4Packet::new_unchecked(message), &checksums);
        }
    });
}

/// The wait for an answer. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct PingGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ident: u16,
}

impl PingGuard {
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<std::time::Duration>> {
        let (mut inner, _) = self.shared.lock();
        inner.check_open()?;
        inner.pings.poll(self.ident, cx.waker()).map(|latency| Ok(latency.into()))
    }
}

impl Drop for PingGuard {
    fn drop(&mut self) {
        self.shared.lock().0.pings.by_ident.remove(&self.ident);
    }
}
