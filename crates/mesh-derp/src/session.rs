//! What one logged-in connection does with the frames that its client sends.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use mesh_keys::NodePublic;
use thiserror::Error;

use crate::client::Client;
use crate::client_state::{Action, ClientState, CloseReason};
use crate::counts::{Counts, DropReason};
use crate::deliveries::Deliveries;
use crate::frame::{ClientFrame, FrameError, PeerGoneReason};
use crate::frame_buffer::FrameBuffer;
use crate::packet::{PacketKind, Tally};
use crate::peer_present::PeerPresent;
use crate::routes::Routes;
use crate::table::Table;

/// Why a relay ends the connection of a client that has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// It does not keep to the framing.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It sent a frame that is not for it to send.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// A logged-in connection as its reader holds it, from [`Self::join`] to [`Self::leave`].
#[derive(Debug)]
pub struct Session {
    table: Arc<Table>,
    client: Arc<Client>,
    state: ClientState,
    routes: Routes,
    /// For another relay of the mesh.
    deliveries: Option<Box<Deliveries>>,
    frames: FrameBuffer,
    counts: Counts,
}

impl Session {
    /// Joins the table; `None` if `admits` says no. For the lock under which it is asked see [`Table::cut`].
    pub fn join(
        table: Arc<Table>,
        peer: PeerPresent,
        now: Instant,
        admits: impl FnOnce() -> bool,
    ) -> Option<Self> {
        let client = table.join(peer, admits)?;
        Some(Self {
            table,
            client,
            state: ClientState::new(peer.is_mesh(), now),
            routes: Routes::new(),
            deliveries: None,
            frames: FrameBuffer::default(),
            counts: Counts::default(),
        })
    }

    /// The connection as others see it, and what waits to be written to it.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Whether a packet of the client would find its way to `dst`, which is remembered as if one had been sent.
    pub fn reaches(&mut self, dst: &NodePublic) -> bool {
        self.routes.find(&self.table, dst).is_some()
    }

    /// Handles the next bytes that came from the client.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn take(&mut self, chunk: &[u8], now: Instant) -> Result<(), SessionError> {
        let mut frames = mem::take(&mut self.frames);
        let taken = frames.take_from_client(chunk, |frame| self.handle_frame(frame, now));
        self.frames = frames;
        taken
    }

    /// What has happened since the last call.
    pub fn take_counts(&mut self) -> Counts {
        mem::take(&mut self.counts)
    }

    /// Leaves the table, and says what has happened since the last call of [`Self::take_counts`].
    pub fn leave(&mut self) -> Counts {
        self.table.leave(&self.client, self.routes.keys());
        let waited = self.client.close();
        let gone = &mut self.counts.dropped[DropReason::DestinationGone as usize];
        gone.iter_mut().zip(waited).for_each(|(gone, waited)| *gone += waited);
        if self.state.leave_home() {
            self.counts.home_clients -= 1;
        }
        self.take_counts()
    }

    fn handle_frame(&mut self, frame: &ClientFrame<'_>, now: Instant) -> Result<(), SessionError> {
        if !self.client.is_active() {
            self.table.activate(&self.client);
        }
        match self.state.handle_frame(frame) {
            Action::Forward { dst, kind, payload } => self.forward(dst, kind, payload, now),
            Action::Deliver { src, dst, kind, payload } => {
                self.deliver(src, dst, kind, payload, now);
            }
            Action::Watch => self.table.watch(&self.client),
            Action::ClosePeer(key) => {
                self.table.cut(&key);
            }
            Action::Pong(data) => {
                self.client.push(|outbox| outbox.push_pong(data));
            }
            Action::HomeChanged { home } => self.counts.home_clients += if home { 1 } else { -1 },
            Action::Ignore => {}
            Action::Close(reason) => return Err(reason.into()),
        }
        Ok(())
    }

    fn forward(&mut self, dst: NodePublic, kind: PacketKind, payload: &[u8], now: Instant) {
        self.counts.received[kind as usize].add(payload.len());
        let Some(route) = self.routes.find(&self.table, &dst) else {
            return self.drop_absent(DropReason::UnknownDestination, dst, kind, payload, now);
        };
        if route.leads_away() {
            self.counts.forwarded[kind as usize].add(payload.len());
        }
        let pushed = route.push(kind, self.client.key(), dst, payload, true);
        self.count_dropped(pushed, kind, payload);
    }

    /// Queues a packet from a client of another relay for one of ours.
    fn deliver(
        &mut self,
        src: NodePublic,
        dst: NodePublic,
        kind: PacketKind,
        payload: &[u8],
        now: Instant,
    ) {
        self.counts.received_forwarded[kind as usize].add(payload.len());
        let deliveries = self.deliveries.get_or_insert_with(|| Box::new(Deliveries::new()));
        let Some((route, is_present)) = deliveries.find(&self.table, &src, &dst) else {
            return self.drop_absent(DropReason::UnknownForwarded, dst, kind, payload, now);
        };
        let pushed = route.push(kind, src, dst, payload, is_present);
        self.count_dropped(pushed, kind, payload);
    }

    /// Drops a packet for nobody, and tells the client so if it is to hear it.
    fn drop_absent(
        &mut self,
        reason: DropReason,
        dst: NodePublic,
        kind: PacketKind,
        payload: &[u8],
        now: Instant,
    ) {
        if self.state.handle_absent(kind, now) {
            self.client.push(|outbox| outbox.push_gone(dst, PeerGoneReason::NotHere));
        }
        self.counts.dropped[reason as usize][kind as usize].add(payload.len());
    }

    /// Counts what went for a packet that was queued, or the packet itself if it was not.
    fn count_dropped(&mut self, pushed: Option<Tally>, kind: PacketKind, payload: &[u8]) {
        let (reason, dropped) = match pushed {
            None => {
                let this = Tally { packets: 1, bytes: payload.len() as u64 };
                (DropReason::DestinationGone, this)
            }
            Some(oldest) => (DropReason::QueueFull, oldest),
        };
        self.counts.dropped[reason as usize][kind as usize] += dropped;
    }
}
