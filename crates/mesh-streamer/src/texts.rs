//! The JSON of nodes as their peers see them, kept for the next viewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use mesh_model::{Node, NodeId};
use mesh_netmap::{MapContext, PeerAspect, peer_as};
use mesh_state::Snapshot;

/// Most bytes of JSON that are kept: 80,000 nodes of the usual size. Beyond it all are forgotten.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Most texts of one node, whose routes different viewers see differently.
const TEXTS_PER_NODE_MAX: usize = 8;

/// A node's JSON, and all that it depends on.
#[derive(Debug)]
struct Text {
    node: Arc<Node>,
    has_expired: bool,
    aspect: PeerAspect,
    context: Arc<MapContext>,
    json: Arc<str>,
}

/// Texts by node.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    by_node: DashMap<NodeId, Vec<Text>>,
    bytes: AtomicUsize,
}

impl Texts {
    /// A node as viewers see it under an aspect; `None` if there is none.
    pub(crate) fn get(
        &self,
        snapshot: &Snapshot,
        context: &Arc<MapContext>,
        id: NodeId,
        aspect: &PeerAspect,
    ) -> Option<Arc<str>> {
        let node = snapshot.tailnet.node(id)?;
        let has_expired = node.is_expired(snapshot.at);
        let is_of_node = |text: &Text| {
            Arc::ptr_eq(&text.node, node)
                && text.has_expired == has_expired
                && Arc::ptr_eq(&text.context, context)
        };
        if let Some(texts) = self.by_node.get(&id)
            && let Some(text) = texts.iter().find(|text| is_of_node(text) && text.aspect == *aspect)
        {
            return Some(text.json.clone());
        }
        let peer = peer_as(node, aspect, snapshot.at, context);
        let json: Arc<str> =
            serde_json::to_string(&peer).expect("invariant: wire types serialize").into();
        self.make_room(json.len());
        let mut texts = self.by_node.entry(id).or_default();
        let kept = texts.iter().map(|text| text.json.len()).sum::<usize>();
        texts.retain(is_of_node);
        texts.truncate(TEXTS_PER_NODE_MAX - 1);
        let (node, context, aspect) = (node.clone(), context.clone(), aspect.clone());
        texts.push(Text { node, has_expired, aspect, context, json: json.clone() });
        let keeps = texts.iter().map(|text| text.json.len()).sum::<usize>();
        self.bytes.fetch_add(keeps.wrapping_sub(kept), Ordering::Relaxed);
        Some(json)
    }

    fn make_room(&self, wanted: usize) {
        if self.bytes.load(Ordering::Relaxed) + wanted > TEXT_BYTES_MAX {
            self.by_node.clear();
            self.bytes.store(0, Ordering::Relaxed);
        }
    }
}
