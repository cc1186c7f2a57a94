//! What a relay decides about one logged-in client, frame by frame.

use std::mem;
use std::time::{Duration, Instant};

use mesh_keys::NodePublic;
use thiserror::Error;

use crate::frame::{ClientFrame, PING_BYTES, frame_type};
use crate::packet::PacketKind;

/// How many not-here answers a client may get at once.
const NOT_HERE_BURST: u32 = 3;

/// How long it takes until a client may get one more.
const NOT_HERE_PERIOD: Duration = Duration::from_secs(1);

/// What the relay is to do because of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'b> {
    /// Pass the packet on, or tell [`ClientState::handle_absent`] that nobody is there to take it.
    Forward {
        /// Who is to receive it.
        dst: NodePublic,
        /// Which of the receiver's queues it goes to.
        kind: PacketKind,
        /// The packet.
        payload: &'b [u8],
    },
    /// Deliver the packet to a client of this relay, and to no other relay.
    Deliver {
        /// Who sent it, to another relay of the mesh.
        src: NodePublic,
        /// Who is to receive it.
        dst: NodePublic,
        /// Which of the receiver's queues it goes to.
        kind: PacketKind,
        /// The packet.
        payload: &'b [u8],
    },
    /// Tell the client who is connected, and from then on who comes and goes.
    Watch,
    /// Close all connections of a client.
    ClosePeer(NodePublic),
    /// Answer a ping with its bytes.
    Pong([u8; PING_BYTES]),
    /// The client has made this relay its home, or has ceased to.
    HomeChanged {
        /// Whether it is the client's home from here on.
        home: bool,
    },
    /// Nothing.
    Ignore,
    /// Close the connection.
    Close(CloseReason),
}

/// Why a relay closes the connection of a client that keeps to the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// It sent a frame that only relays of one mesh may send each other.
    #[error("frame of type {frame_type:#04x} without the mesh key")]
    MeshKeyMissing {
        /// The type as it stands in the header.
        frame_type: u8,
    },
}

/// The relay's memory of one client.
#[derive(Debug)]
pub struct ClientState {
    /// Whether it has the mesh key.
    is_mesh: bool,
    /// Whether this relay is the client's home.
    home: bool,
    /// Not-here answers that may still be given, at most [`NOT_HERE_BURST`].
    not_here_left: u32,
    /// Since when `not_here_left` grows.
    refilled_at: Instant,
}

impl ClientState {
    /// A client that has logged in at `now`, and is of our mesh or not.
    pub fn new(is_mesh: bool, now: Instant) -> Self {
        Self { is_mesh, home: false, not_here_left: NOT_HERE_BURST, refilled_at: now }
    }

    /// Decides what a frame of the client asks for.
    pub fn handle_frame<'b>(&mut self, frame: &ClientFrame<'b>) -> Action<'b> {
        match *frame {
            ClientFrame::SendPacket { dst, payload } => {
                Action::Forward { dst, kind: PacketKind::of(payload), payload }
            }
            ClientFrame::Ping(data) => Action::Pong(data),
            ClientFrame::NotePreferred(home) if home != self.home => {
                self.home = home;
                Action::HomeChanged { home }
            }
            ClientFrame::NotePreferred(_) | ClientFrame::Pong(_) => Action::Ignore,
            ClientFrame::ForwardPacket { src, dst, payload } => self.if_mesh(
                frame_type::FORWARD_PACKET,
                Action::Deliver { src, dst, kind: PacketKind::of(payload), payload },
            ),
            ClientFrame::WatchConns => self.if_mesh(frame_type::WATCH_CONNS, Action::Watch),
            ClientFrame::ClosePeer(key) => {
                self.if_mesh(frame_type::CLOSE_PEER, Action::ClosePeer(key))
            }
        }
    }

    fn if_mesh<'b>(&self, frame_type: u8, action: Action<'b>) -> Action<'b> {
        if self.is_mesh {
            action
        } else {
            Action::Close(CloseReason::MeshKeyMissing { frame_type })
        }
    }

    /// Decides whether to tell the client that nobody took a packet of this kind.
    ///
    /// Only disco packets are answered, for clients learn from it that a path is of no use, and only once a
    /// second after the first three.
    pub fn handle_absent(&mut self, kind: PacketKind, now: Instant) -> bool {
        if kind != PacketKind::Disco {
            return false;
        }
        while self.not_here_left < NOT_HERE_BURST && now >= self.refilled_at + NOT_HERE_PERIOD {
            self.not_here_left += 1;
            self.refilled_at += NOT_HERE_PERIOD;
        }
        if self.not_here_left == NOT_HERE_BURST {
            self.refilled_at = now;
        }
        let allowed = self.not_here_left > 0;
        self.not_here_left = self.not_here_left.saturating_sub(1);
        allowed
    }

    /// Says whether this relay was the client's home until now, when the client leaves.
    pub fn leave_home(&mut self) -> bool {
        mem::take(&mut self.home)
    }
}

#[cfg(test)]
mod tests;
