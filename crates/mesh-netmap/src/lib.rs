//! What a viewer must be told: the whole netmap when its stream opens, then the smallest true difference.
//!
//! Pure functions of snapshots. The law, which tests hold them to: a client that folds all messages of its
//! stream holds exactly the full netmap of the newest snapshot that it was told of. Encoding, framing and
//! pacing are `mesh-streamer`'s business.

mod audience;
mod context;
mod delta;
mod full;
mod peers;
mod to_wire;

pub use audience::Audience;
pub use context::{MapContext, magic_dns_routes};
pub use delta::{Differences, Group, Step, Told, deleted_node};
pub use full::{Withdrawal, full, full_own, full_shared, visible_peers, withdrawal};
pub use peers::{ChangedPeer, Comparisons, PeersDelta};
pub use to_wire::{
    PacketFilters, PeerAspect, peer, peer_as, peer_aspect, self_node, stable_id, tagged_devices,
    user_profile, wire_login, wire_user,
};
