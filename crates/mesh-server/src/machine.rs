//! What clients call inside their Noise channel.

mod channel;
mod from_wire;
mod identity;
mod map;
mod register;
mod small;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, patch, post};

pub(crate) use channel::{BodyError, Channel, read_json};

use crate::App;
use crate::metrics::measure;

/// The routes inside a channel. Requests carry their [`Channel`] as an extension.
pub(crate) fn router(app: App) -> Router {
    let metrics = app.metrics.clone();
    Router::new()
        .route("/machine/register", post(register::register))
        .route("/machine/map", post(map::map))
        .route("/machine/update-health", post(small::update_health))
        .route("/machine/feature/query", post(small::query_feature))
        .route("/machine/set-device-attr", patch(small::set_device_attributes))
        .route("/machine/audit-log", post(small::audit_log))
        .route("/machine/c2n", post(small::accept_answer))
        .route("/machine/whoami", get(small::whoami))
        .route("/machine/set-dns", post(small::not_offered))
        .route("/machine/id-token", post(small::not_offered))
        .route("/machine/webclient/{*path}", any(small::not_offered))
        .route("/machine/tka/{*path}", any(small::not_offered))
        .route("/machine/ssh/action/{*path}", any(small::not_offered))
        .with_state(app)
        .layer(from_fn_with_state(metrics, measure))
}
