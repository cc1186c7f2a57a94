//! Verifies keys that are presented.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_model::{ApiKeyId, PreauthKeyId, SecretHash};
use mesh_state::Snapshot;
use thiserror::Error;
use tokio::time::Instant;

use super::hash::{HashCost, Memory};
use super::pool::{Busy, Pool};
use super::text::{KeyKind, KeyText, MintError, Minted, mint};
use super::verified::{Digest, Flights, VerifiedKeys};
use crate::metrics::{Metrics, Proof};

/// Why a presented key was not verified. Tell a stranger only whether to come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// It is not of a key's form.
    #[error("not a key")]
    Malformed,
    /// No key of this public id exists.
    #[error("unknown key")]
    UnknownKey,
    /// A key of this public id exists, with another secret.
    #[error("wrong secret")]
    WrongSecret,
    /// Too many keys wait to be verified; worth another try in a second.
    #[error("too many keys are being made or verified: try again in a moment")]
    Busy,
}

impl From<Busy> for VerifyError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// Mints and verifies keys, and remembers those that it minted or verified.
///
/// What is remembered hangs on the whole presented text, not on the public id, and on the very hash that it
/// matched. An unknown public id costs a guesser as much as a wrong secret.
pub struct Verifier {
    cost: HashCost,
    /// Random, so that nobody can aim at a digest.
    digest_key: [u8; blake3::KEY_LEN],
    /// What secrets of unknown keys are compared with.
    decoy: SecretHash,
    pool: Pool,
    memory: Arc<Memory>,
    verified: VerifiedKeys,
    flights: Flights,
    hashes_computed: AtomicU64,
    metrics: Metrics,
}

impl Verifier {
    /// Makes a verifier; keys it mints are hashed at `cost`. Computes one hash.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new(cost: HashCost) -> Result<Self, MintError> {
        let mut digest_key = [0; blake3::KEY_LEN];
        getrandom::fill(&mut digest_key)?;
        Ok(Self {
            decoy: mint(KeyKind::Api, &cost)?.secret.hash,
            cost,
            digest_key,
            pool: Pool::new(),
            memory: Arc::default(),
            verified: VerifiedKeys::default(),
            flights: Flights::default(),
            hashes_computed: AtomicU64::new(0),
            metrics: Metrics::default(),
        })
    }

    /// Measures into `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Makes a key, and remembers it: who has minted it need not verify it. What is to be kept of it is for the caller
    /// to submit.
    pub async fn mint(&self, kind: KeyKind) -> Result<Minted, MintError> {
        let cost = self.cost.clone();
        let minted =
            self.pool.run(move || mint(kind, &cost)).await.map_err(|Busy| MintError::Busy)??;
        self.verified.insert(self.digest(&minted.text), minted.secret.hash.clone());
        Ok(minted)
    }

    /// Finds the preauth key whose text was presented. Whether it may still be used is another question.
    pub async fn verify_preauth(
        &self,
        presented: &str,
        snapshot: &Snapshot,
    ) -> Result<PreauthKeyId, VerifyError> {
        let key = KeyText::parse(KeyKind::Preauth, presented);
        let row =
            key.as_ref().and_then(|key| snapshot.tailnet.preauth_key_by_public_id(key.public_id));
        let hash = row.map(|row| &row.hash);
        let verdict = self.check(presented, key, hash).await;
        self.metrics.key_presented(KeyKind::Preauth, verdict);
        verdict.and(row.map(|row| row.id).ok_or(VerifyError::UnknownKey))
    }

    /// Finds the API key whose text was presented. Whether it has expired is another question.
    pub async fn verify_api(
        &self,
        presented: &str,
        snapshot: &Snapshot,
    ) -> Result<ApiKeyId, VerifyError> {
        let key = KeyText::parse(KeyKind::Api, presented);
        let row = key.as_ref().and_then(|key| snapshot.tailnet.api_key_by_public_id(key.public_id));
        let hash = row.map(|row| &row.hash);
        let verdict = self.check(presented, key, hash).await;
        self.metrics.key_presented(KeyKind::Api, verdict);
        verdict.and(row.map(|row| row.id).ok_or(VerifyError::UnknownKey))
    }

    /// Finds the preauth key whose text was presented if it is remembered; computes no hash.
    pub fn recall_preauth(&self, presented: &str, snapshot: &Snapshot) -> Option<PreauthKeyId> {
        let key = KeyText::parse(KeyKind::Preauth, presented)?;
        let row = snapshot.tailnet.preauth_key_by_public_id(key.public_id)?;
        self.recalls(KeyKind::Preauth, presented, &row.hash).then_some(row.id)
    }

    /// Finds the API key whose text was presented if it is remembered; computes no hash.
    pub fn recall_api(&self, presented: &str, snapshot: &Snapshot) -> Option<ApiKeyId> {
        let key = KeyText::parse(KeyKind::Api, presented)?;
        let row = snapshot.tailnet.api_key_by_public_id(key.public_id)?;
        self.recalls(KeyKind::Api, presented, &row.hash).then_some(row.id)
    }

    fn recalls(&self, kind: KeyKind, presented: &str, hash: &SecretHash) -> bool {
        let is_known = self.verified.contains(&self.digest(presented), hash);
        if is_known {
            self.metrics.key_presented(kind, Ok(Proof::Remembered));
        }
        is_known
    }

    /// How many hashes were computed for verification since the process started.
    pub fn hashes_computed(&self) -> u64 {
        self.hashes_computed.load(Ordering::Relaxed)
    }

    fn digest(&self, presented: &str) -> Digest {
        blake3::keyed_hash(&self.digest_key, presented.as_bytes())
    }

    /// Whether the secret is that of the row. Without a row it takes as long and ends in an error.
    async fn check(
        &self,
        presented: &str,
        key: Option<KeyText<'_>>,
        row: Option<&SecretHash>,
    ) -> Result<Proof, VerifyError> {
        let secret = key.ok_or(VerifyError::Malformed)?.secret;
        let digest = self.digest(presented);
        if row.is_some_and(|hash| self.verified.contains(&digest, hash)) {
            return Ok(Proof::Remembered);
        }
        let hash = row.unwrap_or(&self.decoy);
        let is_right =
            self.flights.join(self.question(presented, hash), self.compute(secret, hash));
        match (is_right.await?, row) {
            (true, Some(hash)) => {
                self.verified.insert(digest, hash.clone());
                Ok(Proof::Computed)
            }
            (false, Some(_)) => Err(VerifyError::WrongSecret),
            (_, None) => Err(VerifyError::UnknownKey),
        }
    }

    /// Names the question whether this text matches this hash.
    fn question(&self, presented: &str, hash: &SecretHash) -> Digest {
        blake3::Hasher::new_keyed(&self.digest_key)
            .update(presented.as_bytes())
            .update(hash.0.as_bytes())
            .finalize()
    }

    async fn compute(&self, secret: &str, hash: &SecretHash) -> Result<bool, Busy> {
        let (secret, hash) = (secret.to_owned(), hash.clone());
        let memory = self.memory.clone();
        let since = Instant::now();
        let verdict = self.pool.run(move || memory.matches(&secret, &hash)).await;
        self.metrics.key_hashed(since.elapsed());
        self.hashes_computed.fetch_add(u64::from(verdict.is_ok()), Ordering::Relaxed);
        verdict
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("cost", &self.cost).finish_non_exhaustive()
    }
}
