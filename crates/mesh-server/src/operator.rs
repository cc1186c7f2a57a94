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

/// What the handlers work with.
#[derive(Clone)]
struct Desk {
    app: App,
    registry: Arc<Registry>,
    /// One scrape at a time.
    turn: Arc<Semaphore>,
}

/// `/metrics`, which holds numbers about the tailnet but no names, `/livez` and `/readyz`.
pub fn operator_router(app: App, registry: Registry) -> Router {
    let desk = Desk { app, registry: Arc::new(registry), turn: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(desk)
}

/// `GET /metrics`.
async fn metrics(State(desk): State<Desk>) -> Response {
    let _turn = desk.turn.acquire().await;
    let registry = desk.registry.clone();
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
async fn readyz(State(desk): State<Desk>) -> Response {
    let is_ready = !desk.app.stop.is_cancelled();
    let database = desk.app.database.ping().await;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = json!({ "accepting": is_ready, "database": database });
    (status, Json(json!({ "ready": is_ready, "checks": checks }))).into_response()
}
