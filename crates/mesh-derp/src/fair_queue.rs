//! Packets of many senders for one client: those that send little go before those that send much.

use std::collections::HashMap;

use mesh_keys::NodePublic;

use crate::packet::Tally;
use crate::packet_queue::{Bounds, PacketQueue};

/// Bytes, frames included, that each sender may put before the others in a round: a few packets.
const QUIET_BYTES: usize = 4 << 10;

/// Bytes of the others that leave in a round.
const ROUND_BYTES: u64 = 64 << 10;

/// Senders for whom an empty queue keeps room.
const KEPT_SHARES_MAX: usize = 64;

/// Senders that are remembered before those are forgotten that have nothing among the bulk.
const SHARES_MAX: usize = 16 << 10;

/// How much less of the quiet may wait than of all. What is more is bulk: it waits longer, but is not forgotten for it.
const QUIET_FRACTION: usize = 4;

/// Two queues. Packets of one sender leave in their order all the same: whoever has packets among the bulk puts all
/// others behind them, and the quiet ones leave first.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    quiet: PacketQueue,
    bulk: PacketQueue,
    /// Senders of what waits, and some whose packets have left. Nobody, while nothing waits.
    shares: HashMap<NodePublic, Share>,
    /// Whose share is at hand, for packets come in rows. It is not among `shares`.
    last: Option<(NodePublic, Share)>,
    /// Number of the round, and what of the bulk must have left for the next.
    round: u64,
    round_end: u64,
}

/// What one sender has put into the queues.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// [`PacketQueue::end`] of the bulk behind its last packet there.
    bulk_end: u64,
    /// The last round in which it was quiet, and what it has put before the others in it.
    round: u64,
    quiet_bytes: usize,
}

impl FairQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.quiet.is_empty() && self.bulk.is_empty()
    }

    /// How far both queues have come, and will have come when all that waits now has left.
    pub(crate) fn passed(&self) -> [u64; 2] {
        [self.quiet.passed(), self.bulk.passed()]
    }

    /// See [`Self::passed`].
    pub(crate) fn end(&self) -> [u64; 2] {
        [self.quiet.end(), self.bulk.end()]
    }

    /// Queues a packet of `src`, as [`PacketQueue::push`].
    pub(crate) fn push(
        &mut self,
        src: NodePublic,
        bounds: Bounds,
        sizes: [usize; 2],
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Tally {
        let [frame_bytes, _] = sizes;
        let mut share = self.share(src);
        let quiet_bounds = Bounds {
            packets: bounds.packets / QUIET_FRACTION,
            bytes: bounds.bytes / QUIET_FRACTION,
        };
        // With nothing to overtake, everybody is bulk, which is quicker.
        let is_quiet = !self.bulk.is_empty() && share.bulk_end <= self.bulk.passed() && {
            if share.round != self.round {
                share = Share { round: self.round, quiet_bytes: 0, ..share };
            }
            share.quiet_bytes + frame_bytes <= QUIET_BYTES
                && self.quiet.has_room(quiet_bounds, frame_bytes)
        };
        let dropped = if is_quiet {
            share.quiet_bytes += frame_bytes;
            self.quiet.push(quiet_bounds, sizes, encode)
        } else {
            let dropped = self.bulk.push(bounds, sizes, encode);
            share.bulk_end = self.bulk.end();
            dropped
        };
        self.last = Some((src, share));
        dropped
    }

    /// The share of `src`, which [`Self::push`] puts back.
    fn share(&mut self, src: NodePublic) -> Share {
        match self.last.take() {
            Some((last, share)) if last == src => share,
            last => {
                if self.shares.len() >= SHARES_MAX {
                    self.forget();
                }
                self.shares.extend(last);
                self.shares.remove(&src).unwrap_or_default()
            }
        }
    }

    /// Appends frames to `out` until there are `bytes_max` bytes of them or more.
    pub(crate) fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Tally {
        let before = out.len();
        let mut tally = self.quiet.drain(out, bytes_max);
        if self.quiet.is_empty() {
            tally += self.bulk.drain(out, bytes_max.saturating_sub(out.len() - before));
        }
        if self.is_empty() {
            self.shares.clear();
            self.shares.shrink_to(KEPT_SHARES_MAX);
            self.last = None;
        } else if self.bulk.passed() >= self.round_end {
            self.begin_round();
        }
        tally
    }

    /// Gives every sender its share anew.
    fn begin_round(&mut self) {
        self.round += 1;
        self.round_end = self.bulk.passed() + ROUND_BYTES;
        self.forget();
    }

    /// Forgets senders that have nothing among the bulk.
    fn forget(&mut self) {
        let passed = self.bulk.passed();
        self.shares.retain(|_, share| share.bulk_end > passed);
    }
}

#[cfg(test)]
mod tests;
