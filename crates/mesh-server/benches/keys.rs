//! What one verification of a presented key costs: the first time, and once it is remembered.
//!
//! `cargo bench -p mesh-server --bench keys` measures; without `--bench` (as a test) it only runs through.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mesh_config::Config;
use mesh_model::{ApiKey, ApiKeyId, Tailnet, TailnetId};
use mesh_server::secrets::{HashCost, KeyKind, Minted, Verifier, mint};
use mesh_state::{Loaded, Settings, Snapshot, State};

fn main() -> anyhow::Result<()> {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let keys = if measured { 1000 } else { 4 };
    let cached_rounds = if measured { 200 } else { 2 };

    let argon2 = Config::defaults(Path::new("/")).preauth_keys.argon2;
    let cost = HashCost::new(argon2.memory_kib, argon2.iterations)?;
    let minted: Vec<Minted> =
        (0..keys).map(|_| mint(KeyKind::Api, &cost)).collect::<Result<_, _>>()?;
    let snapshot = snapshot_of(&minted);
    let verifier = Verifier::new(cost)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let cold = measure(&minted, |key| runtime.block_on(verify(&verifier, key, &snapshot)));
    let rounds: Vec<_> = std::iter::repeat_n(&minted, cached_rounds).flatten().collect();
    let cached = measure(rounds, |key| runtime.block_on(verify(&verifier, key, &snapshot)));
    anyhow::ensure!(verifier.hashes_computed() == u64::try_from(keys)?);

    println!("| one key verification | median | 99th percentile |");
    println!("|---|---|---|");
    println!("| cold: argon2id at the default cost | {:.2?} | {:.2?} |", cold.0, cold.1);
    println!("| cached | {:.2?} | {:.2?} |", cached.0, cached.1);
    Ok(())
}

async fn verify(verifier: &Verifier, key: &Minted, snapshot: &Snapshot) {
    let verdict = verifier.verify_api(&key.text, snapshot).await;
    assert!(verdict.is_ok(), "a minted key verifies");
}

/// Median and 99th percentile of the time that `act` takes.
fn measure<T>(inputs: impl IntoIterator<Item = T>, act: impl Fn(T)) -> (Duration, Duration) {
    let time = |input| {
        let start = Instant::now();
        act(input);
        start.elapsed()
    };
    let mut times: Vec<Duration> = inputs.into_iter().map(time).collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn snapshot_of(minted: &[Minted]) -> Snapshot {
    let now = Timestamp::UNIX_EPOCH;
    let mut tailnet = Tailnet::default();
    for (id, key) in (1..).zip(minted) {
        tailnet.put_api_key(Arc::new(ApiKey {
            id: ApiKeyId(id),
            public_id: key.secret.public_id.clone(),
            hash: key.secret.hash.clone(),
            expires_at: None,
            created_at: now,
            last_seen_at: None,
        }));
    }
    let loaded = Loaded { tailnet, ..Loaded::default() };
    State::new(TailnetId(1), loaded, Arc::default(), Settings::default(), now).snapshot(now)
}
