//! What one connection counts.

use crate::outbox::Batch;

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
    /// Bytes of packets that had to go because their destination reads too slowly.
    pub fn queue_full_bytes(&self) -> u64 {
        self.dropped[DropReason::QueueFull as usize].iter().map(|tally| tally.bytes).sum()
    }
}
