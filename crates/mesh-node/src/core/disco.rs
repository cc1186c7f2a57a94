//! Disco messages of peers: who sent them, and what they are to the path.

use std::time::Instant;

use mesh_disco::{Message, TransactionId};
use mesh_keys::NodePublic;
use mesh_path::Way;
use mesh_peers::{PeerIndex, PeerTable};
use tracing::trace;

use super::outbox::Outbox;
use super::ways::Ways;

impl Ways {
    /// Takes a disco datagram, of `relayed` if a relay says so. Returns the pong that it was, and whose.
    pub(super) fn handle_disco(
        &mut self,
        peers: &PeerTable,
        datagram: &[u8],
        way: Way,
        relayed: Option<NodePublic>,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Option<(PeerIndex, TransactionId)> {
        let sender = mesh_disco::sender(datagram);
        let index = sender.and_then(|key| peers.by_disco_key(&key))?;
        let key = peers.get(index)?.key;
        let own = self.public();
        let (mut pong, mut is_answered) = (None, false);
        self.update(peers, index, now, outbox, |peer| {
            let opened = peer.channel.as_ref().map(|channel| channel.open(datagram));
            match opened {
                // A ping of our own can be sent back to us under the peer's name: it bears our key.
                Some(Ok(Message::Ping { transaction, node_key, .. }))
                    if node_key.is_none_or(|claimed| claimed == key && claimed != own) =>
                {
                    peer.path.handle_ping(way, transaction, now);
                }
                Some(Ok(Message::Pong { transaction, .. })) => {
                    pong = Some((index, transaction));
                    is_answered = peer.path.handle_pong(way, transaction, now);
                }
                // Who calls asks to be sent pings: only the relay's word for the sender makes it count.
                Some(Ok(Message::CallMeMaybe { endpoints })) if relayed == Some(key) => {
                    peer.path.handle_call_me_maybe(&endpoints, way, now);
                }
                Some(Ok(_)) | None => {}
                Some(Err(error)) => trace!(%error, "disco datagram dropped"),
            }
        });
        if is_answered {
            self.call_again(index, now, outbox);
        }
        pong
    }
}
