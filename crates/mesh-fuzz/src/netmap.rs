//! A node's netmap: messages of a control server, one after the other.

use jiff::Timestamp;
use mesh_client::Netmap;
use mesh_peers::PeerTable;
use mesh_wire::{MapResponse, Node, NodeId};

/// Any messages, applied in place and folded simply: both know the same peers, and what is found is what was asked for.
pub(crate) fn map_fold(input: &[u8]) {
    let Ok(messages) = serde_json::from_slice::<Vec<MapResponse>>(input) else { return };
    let (mut table, mut netmap, mut events) = (PeerTable::new(), Netmap::default(), Vec::new());
    let now = Timestamp::UNIX_EPOCH;
    for mut message in messages {
        netmap.apply(message.clone(), now);
        if !message.keep_alive {
            table.apply(&mut message, now, &mut events);
        }
        let mut peers: Vec<(NodeId, Node)> =
            table.iter().map(|(_, peer)| (peer.id, peer.to_node())).collect();
        peers.sort_by_key(|(id, _)| *id);
        let folded: Vec<NodeId> = netmap.peers.keys().copied().collect();
        assert_eq!(peers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), folded);
        for (id, node) in peers {
            let found = table.by_id(id).and_then(|index| table.get(index));
            assert_eq!(found.map(|peer| peer.key), Some(node.key));
            // Of peers that claim the same key one is found, and none once that one is gone.
            let found = table.by_key(&node.key).and_then(|index| table.get(index));
            assert!(found.is_none_or(|peer| peer.key == node.key), "a key leads elsewhere");
        }
    }
}
