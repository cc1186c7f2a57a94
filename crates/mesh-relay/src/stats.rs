//! What a relay counts.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_derp::{Batch, Counts, DropReason, KINDS, PacketKind, Tally};

use crate::refusal::Refusal;

/// Counters of a relay since its start, and two gauges. Reading one never waits.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Connections that reached the relay, by either door.
    pub connections: AtomicU64,
    /// Those of them that became a WebSocket.
    pub websockets: AtomicU64,
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
    /// Packets of clients that went on to other relays of the mesh.
    pub forwarded: PacketCounters,
    /// Packets that other relays of the mesh passed on for clients of this one.
    pub received_forwarded: PacketCounters,
    /// Gauge: other relays of the mesh that this one is connected to.
    pub mesh_peers: AtomicU64,
    /// Connections cut because a write made no progress in time.
    pub write_timeouts: AtomicU64,
    /// How often a client had to wait because it sent more than it may.
    pub rate_waits: AtomicU64,
    /// How often a client had to wait because most of what it sent was dropped.
    pub congestion_waits: AtomicU64,
    /// STUN requests answered.
    pub stun_answered: AtomicU64,
    /// Datagrams to the STUN port that were no request of a Tailscale client.
    pub stun_ignored: AtomicU64,
    dropped: [PacketCounters; DropReason::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl RelayStats {
    /// Packets that were not delivered for this reason.
    pub fn dropped(&self, reason: DropReason) -> &PacketCounters {
        &self.dropped[reason as usize]
    }

    /// Connections that were ended for this reason.
    pub fn refused(&self, reason: Refusal) -> &AtomicU64 {
        &self.refused[reason as usize]
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused(reason).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, counts: &Counts) {
        self.received.add(&counts.received);
        self.forwarded.add(&counts.forwarded);
        self.received_forwarded.add(&counts.received_forwarded);
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
