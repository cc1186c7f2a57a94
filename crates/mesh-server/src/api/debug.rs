//! `/debug`: a look into a running server, for admins.
//!
//! It shows who is in the tailnet and what they are told, so it wants what the admin API wants. Private keys and secrets are
//! nowhere in it. Answers are JSON for people; their form may change with any version.

mod nodes;
mod overview;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mesh_config::Setting;
use mesh_model::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{AppState, Problem, access, forbid_caching};
use crate::App;
use crate::metrics::measure;

/// What can be looked at; the answer to `/debug` itself.
const INDEX: &str = "\
/debug/overview                   counts, queues, versions
/debug/config                     each key with its value and who gave it
/debug/policy                     the policy in force: its text, and its largest classes of nodes
/debug/streams                    open map streams, those furthest behind first
/debug/nodes/{node}/map           the full map of a node, as its client would get it
/debug/nodes/{node}/filter        its packet filters alone
/debug/nodes/{node}/sees/{other}  whether two nodes see and reach each other, and why

A node is named by its id or its name.
";

/// What `/debug` shows beside the app.
#[derive(Debug, Clone)]
pub struct DebugState {
    /// The server.
    pub app: App,
    /// The configuration that it was started with.
    pub settings: Arc<[Setting]>,
    /// When it was started.
    pub started_at: Timestamp,
}

/// What the handlers work with.
#[derive(Debug, Clone)]
struct Desk {
    debug: DebugState,
    /// One answer is made at a time: some are as large as the tailnet.
    turn: Arc<Semaphore>,
}

/// Everything under `/debug`, for whom `admin` lets in.
pub fn router(admin: AppState, debug: DebugState) -> Router {
    let metrics = admin.metrics.clone();
    let desk = Desk { debug, turn: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/debug", get(async || INDEX))
        .route("/debug/overview", get(overview::show))
        .route("/debug/config", get(config))
        .route("/debug/policy", get(overview::policy))
        .route("/debug/streams", get(overview::streams))
        .route("/debug/nodes/{node}/map", get(nodes::map))
        .route("/debug/nodes/{node}/filter", get(nodes::filter))
        .route("/debug/nodes/{node}/sees/{other}", get(nodes::sees))
        .with_state(desk)
        .layer(middleware::from_fn_with_state(admin, access::check))
        .layer(middleware::map_response(forbid_caching))
        .layer(middleware::from_fn_with_state(metrics, measure))
}

impl Desk {
    /// Makes an answer off the reactor, when its turn has come.
    async fn answer<T: Serialize + Send + 'static>(
        &self,
        make: impl FnOnce(&DebugState) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let _turn = self.turn.acquire().await;
        let debug = self.debug.clone();
        let work = tokio::task::spawn_blocking(move || {
            Ok(serde_json::to_vec_pretty(&make(&debug)?).unwrap_or_default())
        });
        let mut text: Vec<u8> = work.await.unwrap_or_else(|_| Err(Problem::stopping()))?;
        text.push(b'\n');
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }
}

/// A key of the configuration.
#[derive(Debug, Serialize)]
struct ShownSetting {
    key: &'static str,
    value: String,
    from: String,
}

/// `GET /debug/config`.
async fn config(State(desk): State<Desk>) -> Result<Response, Problem> {
    let shown = |setting: &Setting| ShownSetting {
        key: setting.path,
        value: setting.value.clone(),
        from: setting.origin.to_string(),
    };
    desk.answer(move |debug| Ok(debug.settings.iter().map(shown).collect::<Vec<_>>())).await
}
