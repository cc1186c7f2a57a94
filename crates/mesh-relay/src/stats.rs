//! What a relay counts.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_derp::{Batch, KINDS, PacketKind, Tally};

/// Counters of a relay since its start, and two gauges. Reading one never waits.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Connections that reached the relay, by either door.
    pub connections: AtomicU64,
    /// Clients that logged in.
    pub logins: AtomicU64,
    /// Clients that proved their key and were not admitted.
    pub logins_refused: AtomicU64,
    /// Gauge: connections that are logged in.
    pub clients: AtomicU64,
    /// Gauge: those of them whose home this relay is.
    pub home_clients: AtomicU64,
    /// Packets that clients sent.
    pub received: PacketCounters,
    /// Packets that were written to clients.
    pub sent: PacketCounters,
    /// Connections cut because a write made no progress in time.
    pub write_timeouts: AtomicU64,
    /// STUN requests answered.
    pub stun_answered: AtomicU64,
    /// Datagrams to the STUN port that were no request of a Tailscale client.
    pub stun_ignored: AtomicU64,
    dropped: [PacketCounters; DropReason::ALL.len()],
}

impl RelayStats {
    /// Packets that were not delivered for this reason.
    pub fn dropped(&self, reason: DropReason) -> &PacketCounters {
        &self.dropped[reason as usize]
    }
}

/// Why a packet was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Nobody with the destination's key is connected.
    UnknownDestination = 0,
    /// The destination left while the packet waited for it.
    DestinationGone = 1,
    /// The destination reads too slowly: newer packets pushed this one out.
    QueueFull = 2,
    /// The connection to the destination broke while the packet was being written.
    WriteFailed = 3,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 4] =
        [Self::UnknownDestination, Self::DestinationGone, Self::QueueFull, Self::WriteFailed];

    /// The reason as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownDestination => "unknown_destination",
            Self::DestinationGone => "destination_gone",
            Self::QueueFull => "queue_full",
            Self::WriteFailed => "write_failed",
        }
    }
}

/// Packets and their bytes, by kind.
#[derive(Debug, Default)]
pub struct PacketCounters([(AtomicU64, AtomicU64); KINDS]);

impl PacketCounters {
    /// What was counted of this kind.
    pub fn get(&self, kind: PacketKind) -> Tally {
        let (packets, bytes) = &self.0[kind as usize];
        Tally { packets: packets.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    /// What was counted of both kinds.
    pub fn total(&self) -> Tally {
        let [disco, data] = PacketKind::ALL.map(|kind| self.get(kind));
        Tally { packets: disco.packets + data.packets, bytes: disco.bytes + data.bytes }
    }

    pub(crate) fn add(&self, batch: &Batch) {
        for ((packets, bytes), tally) in self.0.iter().zip(batch) {
            if tally.packets > 0 {
                packets.fetch_add(tally.packets, Ordering::Relaxed);
                bytes.fetch_add(tally.bytes, Ordering::Relaxed);
            }
        }
    }
}

/// Counts of one reader between two reads, so that packets do not touch what all threads share.
#[derive(Debug, Default)]
pub(crate) struct LocalCounts {
    pub(crate) received: Batch,
    pub(crate) dropped: [Batch; DropReason::ALL.len()],
}

impl LocalCounts {
    pub(crate) fn flush(&mut self, stats: &RelayStats) {
        stats.received.add(&self.received);
        for (reason, batch) in DropReason::ALL.iter().zip(&self.dropped) {
            stats.dropped(*reason).add(batch);
        }
        *self = Self::default();
    }
}
