//! What the core wants done: datagrams, packets and news, in the order in which they came up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use mesh_keys::NodePublic;
use mesh_peers::PeerIndex;
use mesh_wire::{DerpMap, DerpRegionId};

use super::pings::{PingId, Pong};
use crate::control::Report;
use crate::watch::WatchEvent;

/// All that waits to be done. The engine empties it after every call of the core.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Datagrams to be sent by UDP.
    pub(crate) datagrams: Batch<Recipient>,
    /// Datagrams to be sent through relays.
    pub(crate) relayed: Vec<Relayed>,
    /// Packets for the TCP/IP stack, which have passed the filter.
    pub(crate) accepted: Batch<()>,
    /// All else.
    pub(crate) effects: Vec<Effect>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
            && self.relayed.is_empty()
            && self.accepted.is_empty()
            && self.effects.is_empty()
    }

    /// Takes over the memory of an outbox that has been carried out, if nothing new has come.
    pub(crate) fn reuse(&mut self, mut done: Self) {
        if self.is_empty() {
            done.datagrams.clear();
            done.accepted.clear();
            *self = done;
        }
    }
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) to: SocketAddr,
    /// The peer whose data it bears: an address that cannot be sent to is then no way to it.
    pub(crate) peer: Option<PeerIndex>,
}

/// A datagram for a peer that a region's relays know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) region: DerpRegionId,
    pub(crate) key: NodePublic,
    pub(crate) datagram: Bytes,
}

/// Something that is to be done, or known, outside.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// These are the relays now.
    Relays(Option<Arc<DerpMap>>),
    /// This region is the home, whose relay shall stay connected.
    Home(DerpRegionId),
    /// The STUN servers of these relays are to be found.
    FindStunServers(Arc<DerpMap>),
    /// The machine's own addresses may have changed.
    LookAround,
    /// These are the node's addresses in the tailnet.
    Addresses(Vec<IpAddr>),
    /// The control server is to be told this.
    Report(Report),
    /// A ping was answered.
    Pong(PingId, Pong),
    /// Something that watchers want to know.
    Event(WatchEvent),
}

/// Byte strings one behind the other, each with something beside it. Keeps its memory when it is cleared.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`; ascending.
    items: Vec<(usize, T)>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), items: Vec::new() }
    }
}

impl<T> Batch<T> {
    pub(crate) fn push(&mut self, bytes: &[u8], beside: T) {
        self.bytes.extend_from_slice(bytes);
        self.items.push((self.bytes.len(), beside));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        let starts = std::iter::once(0).chain(self.items.iter().map(|(end, _)| *end));
        starts.zip(&self.items).map(|(start, (end, beside))| (&self.bytes[start..*end], beside))
    }
}

impl Batch<Recipient> {
    /// The datagrams as runs to one address, all of a run as long as its first but for the last, which may be shorter: what a
    /// system takes in one call. A run has at most `most` datagrams and [`RUN_BYTES_MAX`] bytes.
    pub(crate) fn runs(&self, most: usize) -> impl Iterator<Item = Run<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let run = self.run(at, most)?;
            at += run.recipients.len();
            Some(run)
        })
    }

    fn run(&self, first: usize, most: usize) -> Option<Run<'_>> {
        let start = first.checked_sub(1).map_or(0, |before| self.items[before].0);
        let (first_end, Recipient { to, .. }) = *self.items.get(first)?;
        let segment = first_end - start;
        let (mut end, mut count) = (first_end, 1);
        for (next_end, recipient) in &self.items[first + 1..] {
            let length = next_end - end;
            let is_full = end - start != count * segment || next_end - start > RUN_BYTES_MAX;
            if count >= most || is_full || recipient.to != to || length > segment || length == 0 {
                break;
            }
            (end, count) = (*next_end, count + 1);
        }
        let recipients = &self.items[first..first + count];
        Some(Run { to, bytes: &self.bytes[start..end], segment, recipients })
    }
}

/// Most bytes of a run: those of the longest UDP datagram over IPv6 or IPv4.
const RUN_BYTES_MAX: usize = 65_487;

/// Datagrams to one address.
#[derive(Debug)]
pub(crate) struct Run<'b> {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: &'b [u8],
    /// How long each is, but for the last.
    pub(crate) segment: usize,
    recipients: &'b [(usize, Recipient)],
}

impl Run<'_> {
    /// Has `transmit` send the run in one call, or if that fails one by one: a system does not cut for narrow paths what it is
    /// given at once.
    pub(crate) fn send(&self, mut transmit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let sent = transmit(self.bytes);
        if sent.is_ok() || self.bytes.len() <= self.segment {
            return sent;
        }
        self.bytes.chunks(self.segment).try_for_each(transmit)
    }

    /// The peers whose data the run bears.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerIndex> {
        self.recipients.iter().filter_map(|(_, recipient)| recipient.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams, told by port and length, and the runs that they make, told by port, length and number.
    #[track_caller]
    fn check(datagrams: &[(u16, usize)], most: usize, runs: &[(u16, usize, usize)]) {
        let mut batch = Batch::default();
        let to = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for (port, length) in datagrams {
            batch.push(&vec![0; *length], Recipient { to: to(*port), peer: None });
        }
        let found: Vec<_> = batch
            .runs(most)
            .map(|run| (run.to.port(), run.bytes.len(), run.recipients.len()))
            .collect();
        assert_eq!(found, runs);
    }

    #[test]
    fn equal_datagrams_to_one_address_are_one_run() {
        check(&[(1, 9), (1, 9), (1, 9)], 64, &[(1, 27, 3)]);
    }

    #[test]
    fn shorter_datagram_ends_its_run() {
        check(&[(1, 9), (1, 9), (1, 4), (1, 4)], 64, &[(1, 22, 3), (1, 4, 1)]);
    }

    #[test]
    fn longer_datagram_begins_a_run() {
        check(&[(1, 4), (1, 9), (1, 9)], 64, &[(1, 4, 1), (1, 18, 2)]);
    }

    #[test]
    fn another_address_begins_a_run() {
        check(&[(1, 9), (2, 9), (2, 9), (1, 9)], 64, &[(1, 9, 1), (2, 18, 2), (1, 9, 1)]);
    }

    #[test]
    fn run_has_no_more_datagrams_than_the_system_takes() {
        check(&[(1, 9), (1, 9), (1, 9)], 2, &[(1, 18, 2), (1, 9, 1)]);
        check(&[(1, 9), (1, 9)], 1, &[(1, 9, 1), (1, 9, 1)]);
    }

    #[test]
    fn run_is_no_longer_than_a_datagram_may_be() {
        check(&[(1, 40_000), (1, 40_000)], 64, &[(1, 40_000, 1), (1, 40_000, 1)]);
    }

    #[test]
    fn run_that_is_not_taken_whole_is_sent_one_by_one() {
        let mut batch = Batch::default();
        let to = SocketAddr::from(([192, 0, 2, 1], 1));
        for length in [9, 9, 4] {
            batch.push(&vec![0; length], Recipient { to, peer: None });
        }
        let run = batch.runs(64).next().expect("a run");
        let mut tried = Vec::new();
        let sent = run.send(|bytes| {
            tried.push(bytes.len());
            if bytes.len() > 9 { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
        });
        sent.expect("sent");
        assert_eq!(tried, [22, 9, 9, 4]);
    }
}
