//! The admin API, for the command line, web interfaces and scripts.
//!
//! [`router`] serves it twice: on the unix socket, where whoever may open the socket is an admin, and on
//! the public listener, where an API key makes one. What it asks and answers is headscale's, so that what
//! was written for headscale works; see [`v1`].

mod access;
pub mod debug;
mod extract;
mod problem;
pub mod v1;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use futures_util::future::BoxFuture;
use mesh_model::Clock;
use mesh_netmap::MapContext;
use mesh_store::{Handle, Persist};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, measure};
use crate::secrets::{Attempts, Verifier};

pub use access::{Access, Source};
pub use problem::Problem;

/// What the handlers work with. Clones share it.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The node store.
    pub store: Handle,
    /// Mints and verifies keys.
    pub verifier: Arc<Verifier>,
    /// Failed attempts at API keys.
    pub attempts: Arc<Attempts>,
    /// The time, by which keys expire.
    pub clock: Arc<dyn Clock>,
    /// The database behind the store.
    pub database: Arc<dyn Ping>,
    /// Who may ask.
    pub access: Access,
    /// The file that holds the policy, if one does: then nobody changes the policy here.
    pub policy_file: Option<PolicyFile>,
    /// Measurements of the front door.
    pub metrics: Metrics,
    /// Relays and DNS, as clients are told.
    pub contexts: watch::Receiver<Arc<MapContext>>,
    /// Longest body of a request, in bytes. Policies may be longer.
    pub body_bytes_max: usize,
    /// Ends answers that go on.
    pub stop: CancellationToken,
}

/// The policy as a file.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    /// Where it is.
    pub path: PathBuf,
    /// Why the file as it is now is not in force; `None` if it is.
    pub problem: watch::Receiver<Option<String>>,
}

/// A database that can be asked whether it answers.
pub trait Ping: fmt::Debug + Send + Sync {
    /// Whether it answers.
    fn ping(&self) -> BoxFuture<'_, bool>;
}

impl<P: Persist + fmt::Debug> Ping for P {
    fn ping(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let answer = Persist::ping(self).await;
            if let Err(error) = &answer {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "the database does not answer"
                );
            }
            answer.is_ok()
        })
    }
}

/// A database that is asked at most once a second, however many ask us: a health check must not become its load.
#[derive(Debug)]
pub struct Answering {
    database: Arc<dyn Ping>,
    /// When it was asked last, and what came of it.
    last: Mutex<Option<(Instant, bool)>>,
}

/// How long an answer of the database holds.
const ANSWER_HOLDS: Duration = Duration::from_secs(1);

impl Answering {
    /// Nobody has asked yet.
    pub fn new(database: Arc<dyn Ping>) -> Self {
        Self { database, last: Mutex::default() }
    }
}

impl Ping for Answering {
    fn ping(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            // Whoever comes meanwhile waits for the same answer.
            let mut last = self.last.lock().await;
            if let Some((_, answers)) = last.filter(|(at, _)| at.elapsed() < ANSWER_HOLDS) {
                return answers;
            }
            let answers = self.database.ping().await;
            *last = Some((Instant::now(), answers));
            answers
        })
    }
}

/// Everything under `/api/v1`. Whoever has no access learns nothing, not even which paths exist.
///
/// With [`Access::ApiKeys`] the listener is to put a [`Source`] into the extensions of each request.
pub fn router(state: AppState) -> Router {
    let body_limit = DefaultBodyLimit::max(state.body_bytes_max);
    let v1 = v1::routes()
        .fallback(async || Problem::unknown_route())
        .method_not_allowed_fallback(async || Problem::unknown_method())
        .layer(body_limit)
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .layer(middleware::map_response(forbid_caching))
        .layer(middleware::from_fn_with_state(state.metrics.clone(), measure))
        .with_state(state);
    Router::new().nest_service("/api/v1", v1)
}

/// Answers hold keys and who is in the tailnet.
async fn forbid_caching(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
