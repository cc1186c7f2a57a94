//! `/health`: whether the server can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::api::AppState;

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the database answers.
    pub database_connectivity: bool,
}

/// `GET /health`: 200, or 500 while the database does not answer.
pub(super) async fn show(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let database_connectivity = state.database.ping().await;
    let status =
        if database_connectivity { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(Health { database_connectivity }))
}
