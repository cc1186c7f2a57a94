//! What a relay counts.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_derp::{Batch, Counts, DropReason, KINDS, PacketKind, Tally};

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

    pub(crate) fn add(&self, counts: &Counts) {
        self.received.add(&counts.received);
        for (counters, batch) in self.dropped.iter().zip(&counts.dropped) {
            counters.add(batch);
        }
        if counts.home_clients != 0 {
            // Wraps when it is negative, as it should.
            self.home_clients.fetch_add(counts.home_clients.cast_unsigned(), Ordering::Relaxed);
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
