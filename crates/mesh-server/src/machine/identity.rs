//! The one check that a node key belongs to the channel it is used in. Every handler goes through it.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mesh_keys::NodePublic;
use mesh_model::{Node, Tombstone};
use mesh_state::Snapshot;
use thiserror::Error;

use super::Channel;

/// Why a node key was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum IdentityError {
    /// No node has this key.
    #[error("node not found: register first")]
    Unknown,
    /// The machine's node was deleted.
    #[error("node was deleted: log in again")]
    Deleted(Tombstone),
    /// Another machine's node has this key.
    #[error("node key does not belong to this machine")]
    OtherMachine,
}

impl IntoResponse for IdentityError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Unknown | Self::Deleted(_) => StatusCode::NOT_FOUND,
            Self::OtherMachine => StatusCode::UNAUTHORIZED,
        };
        (status, self.to_string()).into_response()
    }
}

/// The node that speaks through a channel with this key.
pub(crate) fn identify(
    snapshot: &Snapshot,
    channel: &Channel,
    node_key: NodePublic,
) -> Result<Arc<Node>, IdentityError> {
    match snapshot.tailnet.node_by_key(&node_key) {
        Some(node) if node.machine_key == channel.machine_key => {
            channel.claim();
            Ok(node.clone())
        }
        Some(_) => Err(IdentityError::OtherMachine),
        None => {
            let tombstone = snapshot.tailnet.tombstone(channel.machine_key, node_key);
            Err(tombstone.map_or(IdentityError::Unknown, |gone| IdentityError::Deleted(*gone)))
        }
    }
}
