//! Frames that wait in a row, and give way by forgetting the oldest.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;

use crate::packet::Tally;

/// Bytes of frames that are kept in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces that a thread keeps for the next queue to fill.
const SPARE_MAX: usize = 64;

/// Frames for whose lengths an empty queue keeps room.
const KEPT_FRAMES_MAX: usize = 64;

thread_local! {
    /// Empty pieces. They are used again while they are still in the processor's caches, and an empty queue holds
    /// none.
    static SPARE: RefCell<Vec<Vec<u8>>> = RefCell::default();
}

/// How much may wait in a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) packets: usize,
    pub(crate) bytes: usize,
}

/// Frames in a row, the oldest first. They are kept as they leave, so that a packet is copied once on its way in
/// and a whole piece leaves without a copy.
#[derive(Debug, Default)]
pub(crate) struct PacketQueue {
    /// None is empty.
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that have left.
    start: usize,
    frames: VecDeque<Waiting>,
    /// Bytes of `frames`.
    waiting_bytes: usize,
    /// Bytes that have left the queue since it was made, either way.
    passed: u64,
}

/// One frame of a queue.
#[derive(Debug)]
struct Waiting {
    frame_bytes: u32,
    payload_bytes: u32,
}

impl PacketQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that have left the queue since it was made.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// What [`Self::passed`] will be when all that waits now has left.
    pub(crate) fn end(&self) -> u64 {
        self.passed + self.waiting_bytes as u64
    }

    /// Whether no packet had to go for a frame of `frame_bytes`.
    pub(crate) fn has_room(&self, bounds: Bounds, frame_bytes: usize) -> bool {
        self.frames.len() < bounds.packets && self.waiting_bytes + frame_bytes <= bounds.bytes
    }

    /// Has `encode` append a frame of `frame_bytes` around a packet of `payload_bytes`. Returns the packets that had
    /// to go for it.
    pub(crate) fn push(
        &mut self,
        bounds: Bounds,
        [frame_bytes, payload_bytes]: [usize; 2],
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Tally {
        let dropped = self.make_room(bounds, frame_bytes);
        let has_room = |piece: &mut Vec<u8>| piece.len() + frame_bytes <= PIECE_BYTES;
        if !self.pieces.back_mut().is_some_and(has_room) {
            self.pieces.push_back(take_spare());
        }
        if let Some(piece) = self.pieces.back_mut() {
            encode(piece);
        }
        self.waiting_bytes += frame_bytes;
        let [frame_bytes, payload_bytes] = [frame_bytes, payload_bytes]
            .map(|bytes| u32::try_from(bytes).expect("invariant: packets have at most 64 KiB"));
        self.frames.push_back(Waiting { frame_bytes, payload_bytes });
        dropped
    }

    /// Drops the oldest packets until there is room for one more.
    fn make_room(&mut self, bounds: Bounds, frame_bytes: usize) -> Tally {
        let mut dropped = Tally::default();
        while !self.has_room(bounds, frame_bytes) {
            let Some(oldest) = self.pop(|_| {}) else { break };
            dropped.add(oldest);
        }
        dropped
    }

    /// Appends frames to `out` until there are `bytes_max` bytes of them or more, or a whole piece has left.
    pub(crate) fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Tally {
        let (mut tally, mut bytes) = (Tally::default(), 0);
        if out.is_empty()
            && self.start == 0
            && let Some(piece) = self.pieces.pop_front_if(|piece| piece.len() <= bytes_max)
        {
            while bytes < piece.len()
                && let Some(frame) = self.take_first()
            {
                bytes += frame.frame_bytes as usize;
                tally.add(frame.payload_bytes as usize);
            }
            recycle(mem::replace(out, piece));
            return tally;
        }
        while bytes < bytes_max {
            let before = out.len();
            let Some(payload_bytes) = self.pop(|frame| out.extend_from_slice(frame)) else { break };
            bytes += out.len() - before;
            tally.add(payload_bytes);
        }
        tally
    }

    /// Lets the oldest frame leave by `take`, and returns how many bytes its packet has.
    fn pop(&mut self, take: impl FnOnce(&[u8])) -> Option<usize> {
        let Waiting { frame_bytes, payload_bytes } = self.take_first()?;
        let piece = self.pieces.front()?;
        let end = self.start + frame_bytes as usize;
        take(&piece[self.start..end]);
        if end < piece.len() {
            self.start = end;
        } else {
            self.start = 0;
            recycle(self.pieces.pop_front().unwrap_or_default());
        }
        Some(payload_bytes as usize)
    }

    /// Takes the oldest frame out of the books.
    fn take_first(&mut self) -> Option<Waiting> {
        let frame = self.frames.pop_front()?;
        self.waiting_bytes -= frame.frame_bytes as usize;
        self.passed += u64::from(frame.frame_bytes);
        if self.frames.is_empty() {
            self.frames.shrink_to(KEPT_FRAMES_MAX);
        }
        Some(frame)
    }
}

impl Drop for PacketQueue {
    fn drop(&mut self) {
        self.pieces.drain(..).for_each(recycle);
    }
}

fn take_spare() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps a buffer for the next queue of this thread that is filled: one that an outbox was drained into and that is
/// written.
pub fn recycle(mut buffer: Vec<u8>) {
    if !(1..=2 * PIECE_BYTES).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests;
