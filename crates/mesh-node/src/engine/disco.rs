//! Disco messages of peers: who sent them, and what they are to the path.

use std::time::Instant;

use mesh_disco::{Message, TransactionId};
use mesh_keys::NodePublic;
use mesh_path::Way;
use mesh_peers::PeerTable;
use tracing::trace;

use super::ways::Ways;

impl Ways {
    /// Takes a disco datagram, of `relayed` if a relay says so.
    pub(super) fn handle_disco(
        &mut self,
        peers: &PeerTable,
        datagram: &[u8],
        way: Way,
        relayed: Option<NodePublic>,
        now: Instant,
    ) {
        let sender = mesh_disco::sender(datagram);
        let Some(index) = sender.and_then(|key| peers.by_disco_key(&key)) else { return };
        let Some(key) = peers.get(index).map(|peer| peer.key) else { return };
        let own = self.public();
        let mut is_answered = false;
        self.update(peers, index, now, |peer| {
            let opened = peer.channel.as_ref().map(|channel| channel.open(datagram));
            match opened {
                // A ping of our own can be sent back to us under the peer's name: it bears our key.
                Some(Ok(Message::Ping { transaction, node_key, .. }))
                    if node_key.is_none_or(|claimed| claimed == key && claimed != own) =>
                {
                    peer.path.handle_ping(way, transaction, now);
                }
                Some(Ok(Message::Pong { transaction, .. })) => {
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
            self.call_again(index, now);
        }
    }
}

/// The name of a ping. Without randomness it is one that no pong will bear, for nobody can guess that it was sent.
pub(super) fn transaction() -> TransactionId {
    TransactionId(random().unwrap_or_default())
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Option<[u8; N]>
where
    [u8; N]: Default,
{
    let mut bytes = <[u8; N]>::default();
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}
