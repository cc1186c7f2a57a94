//! Asks a verify URL at every login, as Tailscale's derper does with `-verify-client-url`.
//!
//! Source: tailscale `derp/derpserver/derpserver.go`, `verifyClient`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http_body_util::{BodyExt as _, Limited};
use mesh_keys::NodePublic;
use mesh_relay::{Admission, Candidate, LOGIN_DEADLINE};
use mesh_wire::{DerpAdmitClientRequest, DerpAdmitClientResponse};
use reqwest::StatusCode;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::http::{Client, error_chain};
use crate::rarely::Rarely;
use crate::stats::VerifyStats;

/// How long an answer may take; derper waits as long.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Questions that are asked at once. The next ones wait for a place.
const QUESTIONS_MAX: usize = 64;

/// How long a place may be waited for. With the answer, it fits into the time that a relay gives a login.
const PLACE_MAX: Duration = Duration::from_secs(3);

const _: () = assert!(
    PLACE_MAX.as_secs() + ANSWER_MAX.as_secs() < LOGIN_DEADLINE.as_secs(),
    "a login lasts until it is decided"
);

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Why there is no answer.
#[derive(Debug, Error)]
enum AskError {
    #[error("too many logins wait for it")]
    Crowded,
    #[error("it cannot be reached: {}", error_chain(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("it does not answer in time")]
    Timeout,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is too long or broke off")]
    Body,
    #[error("its answer is not understood")]
    Malformed(#[from] serde_json::Error),
}

impl AskError {
    /// Whether the server is as good as away. Who answers something else has been asked and has not allowed it.
    fn is_away(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout => true,
            Self::Status(status) => status.is_server_error(),
            // Logins are for anybody to send: a flood of them must not open the door.
            Self::Crowded | Self::Body | Self::Malformed(_) => false,
        }
    }
}

type Answer = BoxFuture<'static, bool>;

/// Asks a verify URL, once for all logins of a client that wait at the same time.
///
/// No answer outlives its question: who was removed must not get in again.
#[derive(Debug)]
pub(crate) struct VerifyUrl(Arc<Desk>);

#[derive(Debug)]
struct Desk {
    client: Client,
    /// Where questions are asked: not on the threads that carry packets.
    runtime: Handle,
    /// Whether clients are let in while the server is away.
    fail_open: bool,
    asked: Mutex<HashMap<Candidate, WeakShared<Answer>>>,
    places: Semaphore,
    stats: Arc<VerifyStats>,
    warning: Rarely,
}

impl VerifyUrl {
    pub(crate) fn new(client: Client, fail_open: bool, stats: Arc<VerifyStats>) -> Self {
        Self(Arc::new(Desk {
            client,
            runtime: Handle::current(),
            fail_open,
            asked: Mutex::default(),
            places: Semaphore::new(QUESTIONS_MAX),
            stats,
            warning: Rarely::default(),
        }))
    }

    /// The answer that others wait for already, or one of its own.
    fn question(&self, candidate: &Candidate) -> Shared<Answer> {
        let mut asked = self.0.asked();
        if let Some(answer) = asked.get(candidate).and_then(WeakShared::upgrade) {
            return answer;
        }
        let entry = Entry { desk: Arc::clone(&self.0), candidate: *candidate };
        let answer = async move { entry.answer().await }.boxed().shared();
        if let Some(weak) = answer.downgrade() {
            asked.insert(*candidate, weak);
        }
        answer
    }
}

impl Admission for VerifyUrl {
    fn ask<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        self.question(candidate).boxed()
    }

    fn admits(&self, _: &NodePublic) -> bool {
        true
    }
}

/// A question that somebody waits for. It is forgotten with its answer, or when nobody waits any more.
struct Entry {
    desk: Arc<Desk>,
    candidate: Candidate,
}

impl Entry {
    /// Whether the client is let in. The asking ends when nobody waits for it.
    async fn answer(&self) -> bool {
        let (desk, candidate) = (Arc::clone(&self.desk), self.candidate);
        let asking = async move { desk.answer(&candidate).await };
        let task = AbortOnDropHandle::new(self.desk.runtime.spawn(asking));
        // It fails only where the runtime ends.
        task.await.unwrap_or(false)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.desk.asked().remove(&self.candidate);
    }
}

impl Desk {
    fn asked(&self) -> MutexGuard<'_, HashMap<Candidate, WeakShared<Answer>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client is let in.
    async fn answer(&self, candidate: &Candidate) -> bool {
        let (counter, is_let_in) = match self.ask(candidate).await {
            Ok(true) => (&self.stats.allowed, true),
            Ok(false) => (&self.stats.denied, false),
            Err(error) => {
                let is_let_in = self.fail_open && error.is_away();
                if self.warning.is_due() {
                    tracing::warn!(%error, is_let_in, "the verify URL has not decided about a client");
                }
                (&self.stats.unanswered, is_let_in)
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        is_let_in
    }

    async fn ask(&self, candidate: &Candidate) -> Result<bool, AskError> {
        // The places are never closed.
        let place = timeout(PLACE_MAX, self.places.acquire()).await;
        let _place = place.map_err(|_| AskError::Crowded)?;
        let answer = timeout(ANSWER_MAX, self.post(candidate)).await;
        answer.unwrap_or(Err(AskError::Timeout))
    }

    async fn post(&self, candidate: &Candidate) -> Result<bool, AskError> {
        let request =
            DerpAdmitClientRequest { node_public: candidate.key, source: candidate.source };
        let answer = self.client.post().json(&request).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(AskError::Status(answer.status()));
        }
        let body = Limited::new(reqwest::Body::from(answer), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|_| AskError::Body)?.to_bytes();
        let answer: DerpAdmitClientResponse = serde_json::from_slice(&body)?;
        Ok(answer.allow)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_to_be_asked_about_is_not_let_in() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new("http://192.0.2.1/verify", None).unwrap();
        let url = VerifyUrl::new(client, true, Arc::default());
        let flood = url.0.places.acquire_many(64).await.unwrap();
        let candidate = Candidate { key: NodePublic::from_bytes([1; 32]), source: None };
        let since = Instant::now();
        assert!(!url.ask(&candidate).await);
        assert_eq!(since.elapsed(), PLACE_MAX);
        assert_eq!(url.0.stats.unanswered.load(Ordering::Relaxed), 1);
        drop(flood);
    }
}
