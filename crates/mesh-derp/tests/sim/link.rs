//! One connection to a relay: bytes under way in both directions, and what the client makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use mesh_derp::{
    Batch, Client, ClientFrame, FrameBuffer, KINDS, MeshLink, PING_BYTES, PacketKind,
    QUEUE_BYTES_MAX, QUEUE_PACKETS_MAX, Session, Tally,
};

use crate::ledger::Moment;
use crate::packet::Key;

/// Bytes that fit between a relay's writer and whom it writes to: the buffers of the socket at both ends.
pub(crate) const PIPE_BYTES_MAX: usize = 32 << 10;

/// A connection, of a client or of another relay.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) relay: usize,
    pub(crate) session: Session,
    /// Whether the relay has something to write.
    pub(crate) wakes: Flag,
    /// On its way to the relay.
    pub(crate) to_relay: Vec<u8>,
    /// Cuts what comes to the relay, for the model.
    pub(crate) frames: FrameBuffer,
    /// Bytes that the relay has drained, and the pipe has not taken yet.
    pub(crate) writing: usize,
    /// Bytes that the client has not read yet.
    pub(crate) in_pipe: usize,
    /// How many bytes of packets were written to the client, or by a trunk to the relay.
    pub(crate) written: u64,
    /// Whether the client reads nothing.
    pub(crate) is_stalled: bool,
    /// Whether the client is gone, which the relay has yet to notice.
    pub(crate) has_vanished: bool,
    /// Whether the relay knows that it is the client's home.
    pub(crate) is_home: bool,
    /// The pong that the client waits for.
    pub(crate) pong: Option<[u8; PING_BYTES]>,
    /// What the client thinks of others that it has heard from, or of.
    pub(crate) beliefs: BTreeMap<Key, Belief>,
    /// When others were last gone, of those of which the client is to hear it.
    pub(crate) gone_at: BTreeMap<Key, Moment>,
    /// When the relay last had a packet for the client of whose sender it did not know where it is. Another relay may have
    /// passed it on early, or late, which nobody can tell: if the client is still to hear that the sender is gone, it
    /// hears it afterwards.
    pub(crate) doubted_at: BTreeMap<Key, Moment>,
    /// Not-here answers that the client got.
    pub(crate) not_here: u64,
    /// What bounds the packets that wait, to the client or by the trunk.
    pub(crate) bounds: Bounds,
    /// No fewer packets wait.
    waiting: [Tally; KINDS],
    /// The other relay's end of the connection, if there is another relay, and it is not gone.
    pub(crate) trunk: Option<Trunk>,
}

/// A relay's own end of its connection to another.
#[derive(Debug)]
pub(crate) struct Trunk {
    /// Whose end it is.
    pub(crate) home: usize,
    pub(crate) end: MeshLink,
    /// Whether there is something to write to the other relay.
    pub(crate) wakes: Flag,
    pub(crate) is_blocked: bool,
    /// Written by the other relay.
    pub(crate) to_home: Vec<u8>,
    /// Cuts that, for the model.
    pub(crate) frames: FrameBuffer,
}

/// What a client thinks of another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Belief {
    pub(crate) is_there: bool,
    /// When the relay had the last packet of the other that the client got.
    pub(crate) heard_at: Moment,
}

impl Link {
    pub(crate) fn new(key: Key, relay: usize, session: Session, bounds: Bounds) -> Self {
        Self {
            key,
            relay,
            session,
            wakes: Flag::new(),
            to_relay: Vec::new(),
            frames: FrameBuffer::default(),
            writing: 0,
            in_pipe: 0,
            written: 0,
            is_stalled: false,
            has_vanished: false,
            is_home: false,
            pong: None,
            beliefs: BTreeMap::new(),
            gone_at: BTreeMap::new(),
            doubted_at: BTreeMap::new(),
            not_here: 0,
            bounds,
            waiting: [Tally::default(); KINDS],
            trunk: None,
        }
    }

    /// Whether it is a client's, and the client is not gone.
    pub(crate) fn is_client(&self) -> bool {
        self.bounds == Bounds::CLIENT && !self.has_vanished
    }

    /// Which relay's packets wait here: those to the client, or those by the trunk.
    pub(crate) fn writer(&self) -> Option<usize> {
        let is_client = self.bounds == Bounds::CLIENT;
        if is_client { Some(self.relay) } else { Some(self.trunk.as_ref()?.home) }
    }

    /// Has the client send a frame.
    pub(crate) fn send(&mut self, frame: &ClientFrame<'_>) {
        frame.encode(&mut self.to_relay);
    }

    /// Takes some of the bytes that are on their way to the relay.
    pub(crate) fn take_sent(&mut self, bytes_max: usize) -> Vec<u8> {
        take_front(&mut self.to_relay, bytes_max)
    }

    /// Puts what was written into the pipe, as far as it fits in.
    pub(crate) fn fill_pipe(&mut self) {
        let bytes = self.writing.min(PIPE_BYTES_MAX - self.in_pipe);
        self.writing -= bytes;
        self.in_pipe += bytes;
    }

    /// Whether whoever writes to the client has something to do.
    pub(crate) fn is_writer_ready(&self) -> bool {
        let is_blocked = self.writing > 0;
        self.wakes.is_set() || is_blocked && self.in_pipe < PIPE_BYTES_MAX
    }

    /// Whether the relay at the other end of a trunk has something to write.
    pub(crate) fn is_home_ready(&self) -> bool {
        let has_room = self.to_relay.len() < PIPE_BYTES_MAX;
        let is_ready = |trunk: &Trunk| trunk.wakes.is_set() || trunk.is_blocked && has_room;
        self.trunk.as_ref().is_some_and(is_ready)
    }

    /// Notes that a packet waits.
    pub(crate) fn add_waiting(&mut self, kind: usize, payload_bytes: usize) {
        self.waiting[kind].add(payload_bytes);
    }

    /// Notes which packets do not wait any more; none is all, for then there are none.
    pub(crate) fn remove_waiting(&mut self, batch: &Batch, is_all: bool) {
        for (waiting, written) in self.waiting.iter_mut().zip(batch) {
            waiting.packets = waiting.packets.saturating_sub(written.packets);
            waiting.bytes = waiting.bytes.saturating_sub(written.bytes);
        }
        if is_all {
            self.waiting = [Tally::default(); KINDS];
        }
    }

    /// Whether so many packets may wait that some had to go.
    pub(crate) fn may_have_dropped(&self, kind: usize) -> bool {
        self.bounds.may_drop(self.waiting[kind])
    }

    /// The most that can wait.
    pub(crate) fn waiting_max(&self, kind: usize) -> Tally {
        self.bounds.limit(kind, self.waiting[kind])
    }
}

impl Trunk {
    pub(crate) fn new(home: usize, end: MeshLink) -> Self {
        let (wakes, to_home, frames) = (Flag::new(), Vec::new(), FrameBuffer::default());
        Self { home, end, wakes, is_blocked: false, to_home, frames }
    }

    /// Takes some of the bytes that the other relay has written.
    pub(crate) fn take_written(&mut self, bytes_max: usize) -> Vec<u8> {
        take_front(&mut self.to_home, bytes_max)
    }
}

fn take_front(bytes: &mut Vec<u8>, bytes_max: usize) -> Vec<u8> {
    let behind = bytes.split_off(bytes_max.min(bytes.len()));
    std::mem::replace(bytes, behind)
}

/// How much may wait in a queue. Data has two, and the other holds a quarter of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) packets_max: u64,
    pub(crate) bytes_max: u64,
    /// Bytes of a frame around its packet.
    pub(crate) around_packet_bytes: u64,
}

impl Bounds {
    /// For a client.
    pub(crate) const CLIENT: Self = Self {
        packets_max: QUEUE_PACKETS_MAX as u64,
        bytes_max: QUEUE_BYTES_MAX as u64,
        around_packet_bytes: 5 + 32,
    };

    /// For another relay.
    pub(crate) const RELAY: Self = Self {
        packets_max: 8 * QUEUE_PACKETS_MAX as u64,
        bytes_max: 8 * QUEUE_BYTES_MAX as u64,
        around_packet_bytes: 5 + 32 + 32,
    };

    /// Whether a packet may have had to go if no more than so many wait.
    fn may_drop(self, waiting: Tally) -> bool {
        let bytes = waiting.bytes + waiting.packets * self.around_packet_bytes;
        waiting.packets > self.packets_max || bytes > self.bytes_max
    }

    /// How many of so many packets can wait: in all queues of their kind.
    fn limit(self, kind: usize, waiting: Tally) -> Tally {
        let quarters = if kind == PacketKind::Data as usize { 5 } else { 4 };
        Tally {
            packets: waiting.packets.min(self.packets_max * quarters / 4),
            bytes: waiting.bytes.min(self.bytes_max * quarters / 4),
        }
    }
}

/// Whether somebody was woken.
#[derive(Debug)]
pub(crate) struct Flag(Arc<Wakes>);

#[derive(Debug)]
struct Wakes(AtomicBool);

impl Flag {
    /// Somebody is awake from the beginning.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Wakes(AtomicBool::new(true))))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Goes to sleep, to be woken when there is something to write to `client`.
    pub(crate) fn sleep(&self, client: &Client) {
        self.0.0.store(false, Ordering::SeqCst);
        client.register(&Waker::from(Arc::clone(&self.0)));
    }
}

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
