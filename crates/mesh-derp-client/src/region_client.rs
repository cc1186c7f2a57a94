//! The handle of a region's client, and what it tells.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mesh_derp::PeerGoneReason;
use mesh_keys::{NodePrivate, NodePublic};
use mesh_wire::{DerpRegion, DerpRegionId};
use rustls::RootCertStore;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::connection::DisconnectCause;
use crate::keeper::Keeper;
use crate::outbox::{Outbox, Status};

/// What a client of a region needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The region. For a changed one, spawn another client.
    pub region: Arc<DerpRegion>,
    /// Who we are.
    pub private: NodePrivate,
    /// Where the certificates of relays must lead that are neither pinned nor trusted for tests. May be empty.
    pub roots: Arc<RootCertStore>,
    /// Whether the region is our home from the start; see [`RegionClient::set_home`].
    pub is_home: bool,
}

/// What happens in a region.
#[derive(Debug)]
pub enum Event {
    /// A relay of the region has logged us in: peers can reach us here.
    Connected {
        /// Where.
        region: DerpRegionId,
    },
    /// The connection has ended, or an attempt at one has failed. The next attempt follows by itself.
    Disconnected {
        /// Where.
        region: DerpRegionId,
        /// Why.
        cause: DisconnectCause,
    },
    /// A packet has arrived.
    Received {
        /// Where.
        region: DerpRegionId,
        /// Who sent it, by the word of the relay.
        src: NodePublic,
        /// The packet, at most [`mesh_derp::PACKET_BYTES_MAX`] bytes. It shares its memory, up to 128 KiB, with
        /// those that came with it.
        packet: Bytes,
    },
    /// A peer cannot be reached through this region.
    PeerGone {
        /// Where.
        region: DerpRegionId,
        /// The peer.
        key: NodePublic,
        /// Whether it has left or never was here.
        reason: PeerGoneReason,
    },
}

/// A connection to a region that is kept up until this is dropped.
#[derive(Debug)]
pub struct RegionClient {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl RegionClient {
    /// Starts to connect, and tells `events` what happens.
    ///
    /// Nothing is read from the relay while `events` is full: the relay then drops what it has for us. Once its
    /// receiver is gone, the connection ends.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(options: Options, events: mpsc::Sender<Event>) -> Self {
        let shared = Arc::new(Shared::new(options.is_home));
        let keeper = Keeper::new(options, Arc::clone(&shared), events);
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Self { shared, _task: task }
    }

    /// Sends a packet to a peer, or has it wait for the connection.
    ///
    /// It never blocks. When [`crate::QUEUE_PACKETS_MAX`] or [`crate::QUEUE_BYTES_MAX`] is reached, the oldest
    /// packets of its kind, disco or data, are dropped for it; [`Status::dropped`] counts them.
    pub fn send(&self, dst: NodePublic, packet: Bytes) {
        self.shared.update(|outbox| outbox.push_packet(dst, packet));
    }

    /// Tells the relay whether it is our home, and each relay that we connect to later.
    pub fn set_home(&self, is_home: bool) {
        self.shared.update(|outbox| outbox.set_home(is_home));
    }

    /// Whether we are connected, and what has become of the packets so far.
    pub fn status(&self) -> Status {
        self.shared.update(|outbox| outbox.status())
    }
}

/// What the handle and the task share.
#[derive(Debug)]
pub(crate) struct Shared {
    outbox: Mutex<Outbox>,
    /// Told when the outbox ceases to be empty.
    wake: Notify,
}

impl Shared {
    pub(crate) fn new(is_home: bool) -> Self {
        Self { outbox: Mutex::new(Outbox::new(is_home)), wake: Notify::new() }
    }

    /// Looks at or changes the outbox, and wakes the writer if there is something to write for the first time.
    pub(crate) fn update<T>(&self, update: impl FnOnce(&mut Outbox) -> T) -> T {
        // No holder leaves the outbox half-changed, not even by a panic.
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = outbox.is_empty();
        let value = update(&mut outbox);
        let is_empty = outbox.is_empty();
        drop(outbox);
        if was_empty && !is_empty {
            self.wake.notify_one();
        }
        value
    }

    /// Waits until the outbox has ceased to be empty. It may have been emptied since.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}
