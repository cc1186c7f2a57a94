//! `/health`: whether the server can do its work.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::api::{AppState, Problem};

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the database answers.
    pub database_connectivity: bool,
}

/// `GET /health`: an error while the database does not answer.
pub(super) async fn show(State(state): State<AppState>) -> Result<Json<Health>, Problem> {
    if state.database.ping().await {
        Ok(Json(Health { database_connectivity: true }))
    } else {
        Err(Problem::unhealthy())
    }
}
