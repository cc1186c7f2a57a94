//! What one connection counts.

use crate::outbox::{AROUND_PACKET_BYTES, Batch};
use crate::packet::Tally;

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
    /// Another relay of the mesh passed it on, and nobody with the destination's key is connected here.
    UnknownForwarded = 4,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::UnknownDestination,
        Self::DestinationGone,
        Self::QueueFull,
        Self::WriteFailed,
        Self::UnknownForwarded,
    ];

    /// The reason as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownDestination => "unknown_destination",
            Self::DestinationGone => "destination_gone",
            Self::QueueFull => "queue_full",
            Self::WriteFailed => "write_failed",
            Self::UnknownForwarded => "unknown_forwarded",
        }
    }
}

/// What one connection did, between two looks: packets do not touch what all threads share.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that the client sent.
    pub received: Batch,
    /// Those of them that went to another relay of the mesh.
    pub forwarded: Batch,
    /// Packets that another relay passed on for a client of this one.
    pub received_forwarded: Batch,
    /// Packets that were not delivered, by [`DropReason`].
    pub dropped: [Batch; DropReason::ALL.len()],
    /// By how much the number of clients has grown whose home this relay is.
    pub home_clients: i64,
}

impl Counts {
    /// Bytes of packets that had to go because their destination reads too slowly, with the frames in which a client sends
    /// them: small packets are little else.
    pub fn queue_full_bytes(&self) -> u64 {
        let dropped = &self.dropped[DropReason::QueueFull as usize];
        let bytes = |tally: &Tally| tally.bytes + tally.packets * AROUND_PACKET_BYTES as u64;
        dropped.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_packets_count_as_long_as_they_were_sent() {
        let mut counts = Counts::default();
        let dropped = &mut counts.dropped[DropReason::QueueFull as usize];
        (dropped[0].packets, dropped[1]) = (2, Tally { packets: 1, bytes: 100 });
        assert_eq!(counts.queue_full_bytes(), 100 + 3 * (5 + 32));
    }
}
