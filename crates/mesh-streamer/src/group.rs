//! What a group of viewers is told of its peers, encoded once for all of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use mesh_model::NodeId;
use mesh_netmap::{ChangedPeer, MapContext, PacketFilters, PeersDelta};
use mesh_state::Snapshot;
use mesh_wire::MapResponse;

use crate::Compression;
use crate::encode::{Encoder, Message, fields};
use crate::texts::Texts;

/// How many peers stand in one piece of a message: few enough that a viewer's own piece, which is made for it alone,
/// costs little.
const PEERS_PER_PIECE: usize = 32;

/// What is told to one group between two flushes.
#[derive(Debug)]
pub(crate) struct GroupFrames {
    delta: PeersDelta,
    /// By compression.
    encoded: [OnceLock<Encoded>; 2],
}

/// What is told to all but those that are among what changed.
#[derive(Debug)]
struct Encoded {
    messages: Vec<Message>,
    /// The list of changed peers, for messages that begin otherwise.
    pieces: Vec<Bytes>,
}

/// What encoding takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub(crate) encoder: &'a Encoder,
    pub(crate) texts: &'a Texts,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) context: &'a Arc<MapContext>,
    pub(crate) compression: Compression,
}

impl GroupFrames {
    pub(crate) fn new(delta: PeersDelta) -> Self {
        Self { delta, encoded: Default::default() }
    }

    /// All that is told to a viewer, with its packet filters in the first message.
    pub(crate) fn messages(
        &self,
        viewer: NodeId,
        packet_filters: PacketFilters,
        workshop: Workshop<'_>,
    ) -> Vec<Message> {
        if self.delta.is_empty_for(viewer) {
            return workshop.filters(packet_filters).into_iter().collect();
        }
        let encoded = self.encoded(workshop);
        let is_named = self.delta.names(viewer);
        if !is_named && packet_filters.is_empty() {
            return encoded.messages.clone();
        }
        let first = MapResponse { packet_filters, ..self.delta.first_message(viewer) };
        let mut pieces = encoded.pieces.clone();
        if let Some(own) = self.piece_of(viewer) {
            pieces[own] = workshop.list_piece(self.pieces()[own], own, Some(viewer));
        }
        let is_alone = self.delta.changed.iter().all(|peer| peer.id == viewer);
        if is_alone {
            pieces.clear();
        }
        let first = workshop.first_message(&first, pieces);
        let second = if is_named {
            let second = self.delta.second_message(viewer);
            second.map(|message| workshop.encoder.encode(&message, workshop.compression))
        } else {
            encoded.messages.get(1).cloned()
        };
        [Some(first), second].into_iter().flatten().collect()
    }

    fn pieces(&self) -> Vec<&[ChangedPeer]> {
        self.delta.changed.chunks(PEERS_PER_PIECE).collect()
    }

    /// The piece that says something of a node.
    fn piece_of(&self, node: NodeId) -> Option<usize> {
        let at = self.delta.changed.binary_search_by_key(&node, |peer| peer.id).ok()?;
        Some(at / PEERS_PER_PIECE)
    }

    fn encoded(&self, workshop: Workshop<'_>) -> &Encoded {
        self.encoded[workshop.compression as usize].get_or_init(|| {
            let numbered = self.pieces().into_iter().enumerate();
            let pieces: Vec<Bytes> =
                numbered.map(|(number, peers)| workshop.list_piece(peers, number, None)).collect();
            // Nobody has this id.
            let everybody = NodeId(0);
            let first =
                workshop.first_message(&self.delta.first_message(everybody), pieces.clone());
            let second = self.delta.second_message(everybody);
            let second =
                second.map(|message| workshop.encoder.encode(&message, workshop.compression));
            let joined = |message: Message| -> Message { [message.concat().into()].into() };
            Encoded {
                messages: [Some(joined(first)), second].into_iter().flatten().collect(),
                pieces,
            }
        })
    }
}

impl Workshop<'_> {
    /// A message of packet filters alone, if there are any.
    pub(crate) fn filters(self, packet_filters: PacketFilters) -> Option<Message> {
        let message = MapResponse { packet_filters, ..MapResponse::default() };
        (!message.packet_filters.is_empty())
            .then(|| self.encoder.encode(&message, self.compression))
    }

    /// The first message on peers, with a list of changed ones that has been encoded.
    fn first_message(self, message: &MapResponse, list: Vec<Bytes>) -> Message {
        if list.is_empty() {
            return self.encoder.encode(message, self.compression);
        }
        let fields = fields(message);
        let comma = if fields.is_empty() { "" } else { "," };
        let begin = format!("{{{fields}{comma}\"PeersChanged\":[");
        let begin = self.encoder.piece(&begin, self.compression);
        let end = self.encoder.piece("]}", self.compression);
        let pieces = [begin].into_iter().chain(list).chain([end]);
        self.encoder.message(pieces.collect(), self.compression)
    }

    /// A piece of the list of changed peers, perhaps without one of them.
    fn list_piece(self, peers: &[ChangedPeer], number: usize, without: Option<NodeId>) -> Bytes {
        let mut json = String::new();
        for peer in peers.iter().filter(|peer| Some(peer.id) != without) {
            if number > 0 || !json.is_empty() {
                json.push(',');
            }
            self.write(peer, &mut json);
        }
        self.encoder.piece(&json, self.compression)
    }

    fn write(self, peer: &ChangedPeer, json: &mut String) {
        if let Some(node) = &peer.held_back {
            let text = serde_json::to_string(&**node).expect("invariant: wire types serialize");
            return json.push_str(&text);
        }
        let text = self.texts.get(self.snapshot, self.context, peer.id, &peer.aspect);
        json.push_str(&text.expect("invariant: a changed peer is there"));
    }
}
