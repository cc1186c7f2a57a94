//! The operator's listener: metrics, health, and a look inside.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::App;

/// What Prometheus asks for by default, and what any text format of its reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/metrics` is made of.
#[derive(Clone)]
struct Exposition {
    registry: Arc<Registry>,
    /// One scrape at a time.
    turn: Arc<Semaphore>,
}

/// `/metrics`, which holds numbers about the tailnet but no names, `/livez` and `/readyz`.
pub fn operator_router(app: App, registry: Registry) -> Router {
    metrics_router(registry).merge(Router::new().route("/readyz", get(readyz)).with_state(app))
}

/// `/metrics` and `/livez` of any server.
pub fn metrics_router(registry: Registry) -> Router {
    let turn = Arc::new(Semaphore::new(1));
    let exposition = Exposition { registry: Arc::new(registry), turn };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .with_state(exposition)
}

/// `GET /metrics`.
async fn metrics(State(exposition): State<Exposition>) -> Response {
    let _turn = exposition.turn.acquire().await;
    let registry = exposition.registry.clone();
    // Counting a large tailnet takes a while.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        text::encode(&mut text, &registry).map(|()| text)
    });
    match encoded.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `GET /readyz` as on the public listener, with what it rests on.
async fn readyz(State(app): State<App>) -> Response {
    let is_ready = !app.stop.is_cancelled();
    let database = app.database.ping().await;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = json!({ "accepting": is_ready, "database": database });
    (status, Json(json!({ "ready": is_ready, "checks": checks }))).into_response()
}
