//! Preauth keys as text, as whoever wants to register presents them.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use mesh_model::{PreauthKey, PreauthKeyId, Tailnet, TailnetId};
use mesh_server::secrets::{HashCost, KeyKind, Minted, Verifier, mint};
use mesh_state::{Loaded, Settings, Snapshot, State};
use tokio::runtime::{Builder, Runtime};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// A server that knows one preauth key.
struct World {
    runtime: Runtime,
    verifier: Verifier,
    minted: Minted,
    snapshot: Snapshot,
}

/// Any text as a preauth key, then the server's key with any change to it: only the key itself opens.
pub(crate) fn preauth_key(input: &[u8]) {
    let world = &*WORLD;
    let mut changed = world.minted.text.clone().into_bytes();
    changed.iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    for presented in [input, &changed] {
        let Ok(text) = str::from_utf8(presented) else { continue };
        let verified = world.verifier.verify_preauth(text, &world.snapshot);
        let opens = world.runtime.block_on(verified).is_ok();
        assert_eq!(opens, text == world.minted.text, "only the whole key opens");
        assert_eq!(KeyKind::Preauth.unmask(&KeyKind::Preauth.masked(text)), text);
    }
}

impl World {
    fn new() -> Self {
        let cost = HashCost::new(8, 1).expect("the least that argon2 allows");
        let minted = mint(KeyKind::Preauth, &cost).expect("the system has randomness");
        let now = Timestamp::UNIX_EPOCH;
        let mut tailnet = Tailnet::default();
        tailnet.put_preauth_key(Arc::new(row(&minted, now)));
        let loaded = Loaded { tailnet, ..Loaded::default() };
        let state = State::new(TailnetId(1), loaded, Arc::default(), Settings::default(), now);
        Self {
            runtime: Builder::new_current_thread().build().expect("a runtime without sockets"),
            verifier: Verifier::new(cost).expect("the system has randomness"),
            minted,
            snapshot: state.snapshot(now),
        }
    }
}

fn row(minted: &Minted, now: Timestamp) -> PreauthKey {
    PreauthKey {
        id: PreauthKeyId(1),
        public_id: minted.secret.public_id.clone(),
        hash: minted.secret.hash.clone(),
        user: None,
        tags: Vec::new(),
        reusable: true,
        ephemeral: false,
        used_at: None,
        used_by: None,
        expires_at: None,
        revoked_at: None,
        created_at: now,
    }
}
