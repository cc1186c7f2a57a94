//! `/derp/map`: which relays clients are told of.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mesh_wire::DerpMap;

use crate::api::AppState;

/// `GET /derp/map`: the DERP map as clients get it, in the shape of `tailcfg`.
pub(super) async fn show(State(state): State<AppState>) -> Json<Arc<DerpMap>> {
    Json(Arc::clone(&state.contexts.borrow().derp_map))
}
