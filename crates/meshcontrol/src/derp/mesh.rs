//! The mesh that a relay belongs to, as configured.

use anyhow::Context as _;
use mesh_config::sections::DerpMesh;
use mesh_keys::MeshKey;
use mesh_relay::{MeshHandle, MeshPeer, Relay, read_mesh_key};

use crate::roots;

/// What the relays of a mesh have in common, and the others of them.
pub(crate) struct Mesh {
    pub(crate) key: Option<MeshKey>,
    peers: Vec<MeshPeer>,
}

impl Mesh {
    /// Reads the key and looks through the names of the others.
    pub(crate) fn read(settings: &DerpMesh) -> anyhow::Result<Self> {
        let key = settings.key_path.as_deref().map(read_mesh_key).transpose();
        let key = key.context("derp.server.mesh.key_path does not work")?;
        let peer = |text: &String| {
            text.parse().with_context(|| format!("derp.server.mesh.with does not work: {text}"))
        };
        let peers = settings.with.iter().map(peer).collect::<anyhow::Result<_>>()?;
        Ok(Self { key, peers })
    }

    /// Keeps `relay`, which has the key, connected to the others. The connections end with their handles.
    pub(crate) fn join(&self, relay: &Relay) -> Vec<MeshHandle> {
        if self.peers.is_empty() {
            return Vec::new();
        }
        let roots = roots::of_system();
        self.peers.iter().filter_map(|peer| relay.spawn_mesh(peer, roots.clone())).collect()
    }
}
