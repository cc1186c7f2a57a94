//! The mesh that a relay belongs to, as configured.

use anyhow::Context as _;
use mesh_config::sections::DerpMesh;
use mesh_keys::MeshKey;
use mesh_relay::{MeshHandle, MeshPeer, Relay, read_mesh_key};

use crate::roots;
use crate::serve::files;

/// What the relays of a mesh have in common, and the others of them.
pub(crate) struct Mesh {
    pub(crate) key: Option<MeshKey>,
    peers: Vec<MeshPeer>,
}

impl Mesh {
    /// Reads the key and looks through the names of the others.
    pub(crate) fn read(settings: &DerpMesh) -> anyhow::Result<Self> {
        let read = |path| read_mesh_key(path, files::read_private);
        let key = settings.key_path.as_deref().map(read).transpose();
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, log) = (folder.path().join("mesh.key"), folder.path().join("log"));
        fs::write(&key, "a0".repeat(32)).expect("a key");
        let settings = DerpMesh { key_path: Some(key.clone()), with: Vec::new() };
        let told = |mode: u32| {
            fs::set_permissions(&key, Permissions::from_mode(mode)).expect("a mode");
            let writer = Arc::new(File::create(&log).expect("a log"));
            let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
            let mesh = tracing::subscriber::with_default(subscriber, || Mesh::read(&settings));
            assert!(mesh.expect("a mesh").key.is_some());
            fs::read_to_string(&log).expect("a log")
        };
        assert_eq!(told(0o600), "");
        assert!(told(0o644).contains("others may read this private file"));
    }
}
