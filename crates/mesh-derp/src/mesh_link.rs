//! What a relay does with its own connection to another relay of the mesh.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use mesh_keys::NodePublic;
use thiserror::Error;

use crate::client::Client;
use crate::counts::{Counts, DropReason};
use crate::frame::{ClientFrame, FrameError, ServerFrame};
use crate::frame_buffer::FrameBuffer;
use crate::peer_present::PeerPresent;
use crate::table::Table;

/// Clients that one relay may tell another about: more than any region has.
const CLIENTS_MAX: usize = 1 << 20;

/// Why a connection to another relay is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MeshLinkError {
    /// It does not keep to the framing.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It tells of more clients than there can be.
    #[error("relay has more than {CLIENTS_MAX} clients")]
    TooManyClients,
}

/// A logged-in connection to another relay, from [`Self::new`] to [`Self::leave`]: the way that packets take to
/// its clients. What they send us comes by its connection to us.
#[derive(Debug)]
pub struct MeshLink {
    table: Arc<Table>,
    relay: Arc<Client>,
    /// Our own key, by which the relay knows this connection.
    own: NodePublic,
    /// Whom the relay has.
    present: HashSet<NodePublic>,
    is_accepted: bool,
    frames: FrameBuffer,
}

impl MeshLink {
    /// Begins with nothing known of `relay`'s clients. `own` is the key that we logged in with.
    pub fn new(table: Arc<Table>, own: NodePublic, relay: PeerPresent) -> Self {
        let relay = Arc::new(Client::new(relay));
        let (present, frames) = (HashSet::new(), FrameBuffer::default());
        Self { table, relay, own, present, is_accepted: false, frames }
    }

    /// Appends the frame to `out` that is to be written first: it has the relay tell who its clients are.
    pub fn encode_first(out: &mut Vec<u8>) {
        ClientFrame::WatchConns.encode(out);
    }

    /// The relay as our clients see it, and what waits to be written to it.
    pub fn relay(&self) -> &Arc<Client> {
        &self.relay
    }

    /// Whether the relay has taken us for one of its mesh: it has told us of a client, of ourselves at least.
    pub fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// How many clients the relay has.
    pub fn clients(&self) -> usize {
        self.present.len()
    }

    /// Handles the next bytes that came from the relay.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), MeshLinkError> {
        let mut frames = mem::take(&mut self.frames);
        let taken = frames.take_from_server(chunk, |frame| self.handle_frame(frame));
        self.frames = frames;
        taken
    }

    /// Leads no packets over the connection any more, and says which waited in vain.
    pub fn leave(&mut self) -> Counts {
        for key in mem::take(&mut self.present) {
            self.table.remove_forwarder(&key, &self.relay);
        }
        let mut counts = Counts::default();
        counts.dropped[DropReason::DestinationGone as usize] = self.relay.close();
        counts
    }

    fn handle_frame(&mut self, frame: &ServerFrame<'_>) -> Result<(), MeshLinkError> {
        match frame {
            ServerFrame::PeerPresent(peer) => {
                self.is_accepted = true;
                if peer.key != self.own && self.present.insert(peer.key) {
                    self.table.add_forwarder(peer.key, &self.relay);
                }
                if self.present.len() > CLIENTS_MAX {
                    return Err(MeshLinkError::TooManyClients);
                }
            }
            // Whether it has left or was not there when a packet came for it.
            ServerFrame::PeerGone { key, .. } => {
                if self.present.remove(key) {
                    self.table.remove_forwarder(key, &self.relay);
                }
            }
            ServerFrame::Ping(data) => {
                self.relay.push(|outbox| outbox.push_pong(*data));
            }
            ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_)
            | ServerFrame::RecvPacket { .. }
            | ServerFrame::KeepAlive
            | ServerFrame::Pong(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::frame::{FrameReader, PeerGoneReason};

    fn peer(number: u8) -> PeerPresent {
        let addr = (Ipv4Addr::LOCALHOST, 1).into();
        PeerPresent { key: NodePublic::from_bytes([number; 32]), addr, flags: PeerPresent::REGULAR }
    }

    fn handle(link: &mut MeshLink, frames: &[ServerFrame<'_>]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        link.take(&bytes).expect("frames");
    }

    #[test]
    fn packets_go_to_a_relay_for_whom_it_has_and_as_long() {
        let table = Arc::<Table>::default();
        let mut link = MeshLink::new(Arc::clone(&table), peer(1).key, peer(9));
        handle(&mut link, &[ServerFrame::KeepAlive]);
        assert!(!link.is_accepted());
        let has = |number: u8| table.find(&peer(number).key).is_some();
        let present = [1, 2, 2, 3, 4].map(|number| ServerFrame::PeerPresent(peer(number)));
        handle(&mut link, &present);
        assert!(!has(1) && has(2) && has(3) && has(4), "all but ourselves");
        assert!(link.is_accepted());
        assert_eq!(link.clients(), 3);
        let gone = |number, reason| ServerFrame::PeerGone { key: peer(number).key, reason };
        let left = [gone(2, PeerGoneReason::Disconnected), gone(3, PeerGoneReason::NotHere)];
        handle(&mut link, &left);
        assert!(!has(2) && !has(3) && has(4));

        table.find(&peer(4).key).expect("a way").push(
            crate::PacketKind::Data,
            peer(5).key,
            peer(4).key,
            b"packet",
            true,
        );
        let counts = link.leave();
        assert!(!has(4));
        assert_eq!(counts.dropped[DropReason::DestinationGone as usize][1].packets, 1);
    }

    #[test]
    fn what_a_relay_asks_is_answered_and_all_else_passed_over() {
        let table = Arc::<Table>::default();
        let mut link = MeshLink::new(table, peer(1).key, peer(9));
        let packet = ServerFrame::RecvPacket { src: peer(2).key, payload: b"packet" };
        handle(&mut link, &[ServerFrame::KeepAlive, packet, ServerFrame::Ping([7; 8])]);
        let mut bytes = Vec::new();
        link.relay().drain(&mut bytes, usize::MAX);
        let frame = FrameReader::new().next_from_client(&mut &bytes[..]);
        assert_eq!(frame, Ok(Some(ClientFrame::Pong([7; 8]))));
        let refused = link.take(&[0x08, 0, 0, 0, 1]);
        assert!(matches!(refused, Err(MeshLinkError::Frame(_))));
    }
}
