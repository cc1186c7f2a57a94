//! What a viewer must be told: the whole netmap when its stream opens, then the smallest true difference.
//!
//! Pure functions of snapshots. The law, which tests hold them to: a client that folds all messages of its
//! stream holds exactly the full netmap of the newest snapshot that it was told of. Encoding, framing and
//! pacing are `mesh-streamer`'s business.

mod context;
mod delta;
mod full;
mod to_wire;

pub use context::{MapContext, magic_dns_routes};
pub use delta::{Differences, Told, deleted_node, peers_delta, tell};
pub use full::{full, full_again};
pub use to_wire::{
    peer, self_node, stable_id, tagged_devices, user_profile, wire_login, wire_user,
};
