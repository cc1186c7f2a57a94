//! What one logged-in connection does with the frames that its client sends.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use mesh_keys::NodePublic;
use thiserror::Error;

use crate::client::Client;
use crate::client_state::{Action, ClientState, CloseReason};
use crate::counts::{Counts, DropReason};
use crate::frame::{ClientFrame, FrameError, PeerGoneReason};
use crate::frame_buffer::FrameBuffer;
use crate::packet::{PacketKind, Tally};
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
    frames: FrameBuffer,
    counts: Counts,
}

impl Session {
    /// Joins the table; `None` if `admits` says no. For the lock under which it is asked see [`Table::cut`].
    pub fn join(
        table: Arc<Table>,
        key: NodePublic,
        now: Instant,
        admits: impl FnOnce() -> bool,
    ) -> Option<Self> {
        let client = table.join(key, admits)?;
        Some(Self {
            table,
            client,
            state: ClientState::new(now),
            routes: Routes::new(),
            frames: FrameBuffer::default(),
            counts: Counts::default(),
        })
    }

    /// The connection as others see it, and what waits to be written to it.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
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
        let src = self.client.key();
        let this = Tally { packets: 1, bytes: payload.len() as u64 };
        let (reason, dropped) = match self.routes.find(&self.table, &dst) {
            None => {
                if self.state.handle_absent(kind, now) {
                    self.client.push(|outbox| outbox.push_gone(dst, PeerGoneReason::NotHere));
                }
                (DropReason::UnknownDestination, this)
            }
            Some(route) => match route.client.push(|outbox| outbox.push_packet(kind, src, payload))
            {
                None => (DropReason::DestinationGone, this),
                Some(oldest) => (DropReason::QueueFull, oldest),
            },
        };
        self.counts.dropped[reason as usize][kind as usize] += dropped;
    }
}
