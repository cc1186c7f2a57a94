//! The small endpoints: what clients report and ask besides registering and their map.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use mesh_wire::{
    AuditLogRequest, HealthChangeRequest, QueryFeatureRequest, QueryFeatureResponse,
    SetDeviceAttributesRequest,
};

use super::Channel;
use super::channel::{read_body, read_json};
use super::identity::identify;
use crate::App;

/// Largest body of a small request, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// `POST /machine/update-health`: older clients report what ails them.
pub(crate) async fn update_health(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<StatusCode, Response> {
    let request: HealthChangeRequest =
        read_json(body, BODY_BYTES_MAX).await.map_err(IntoResponse::into_response)?;
    let node = identify(&app.store.snapshot(), &channel, request.node_key)
        .map_err(IntoResponse::into_response)?;
    tracing::debug!(
        node.id = node.id.0,
        health.subsystem = request.subsys,
        "node reports its health"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /machine/feature/query`: whether serve or funnel may be switched on. The text is shown to the user.
pub(crate) async fn query_feature(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<Json<QueryFeatureResponse>, Response> {
    let request: QueryFeatureRequest =
        read_json(body, BODY_BYTES_MAX).await.map_err(IntoResponse::into_response)?;
    identify(&app.store.snapshot(), &channel, request.node_key)
        .map_err(IntoResponse::into_response)?;
    let text = match request.feature.as_str() {
        "serve" => {
            "HTTPS for `tailscale serve` is not offered by this server: it issues no certificates."
        }
        "funnel" => "Funnel is not offered by this server.",
        _ => "This feature is not offered by this server.",
    };
    Ok(Json(QueryFeatureResponse { text: text.to_owned(), ..QueryFeatureResponse::default() }))
}

/// `PATCH /machine/set-device-attr`: nothing here decides by device attributes, so they are taken and dropped.
pub(crate) async fn set_device_attributes(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<StatusCode, Response> {
    let request: SetDeviceAttributesRequest =
        read_json(body, BODY_BYTES_MAX).await.map_err(IntoResponse::into_response)?;
    identify(&app.store.snapshot(), &channel, request.node_key)
        .map_err(IntoResponse::into_response)?;
    Ok(StatusCode::OK)
}

/// `POST /machine/audit-log`: what a user did on its node, such as disconnecting for a reason.
pub(crate) async fn audit_log(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<StatusCode, Response> {
    let request: AuditLogRequest =
        read_json(body, BODY_BYTES_MAX).await.map_err(IntoResponse::into_response)?;
    let node = identify(&app.store.snapshot(), &channel, request.node_key)
        .map_err(IntoResponse::into_response)?;
    tracing::info!(
        node.id = node.id.0,
        audit.action = request.action,
        audit.details = request.details,
        "audit log of a node"
    );
    Ok(StatusCode::OK)
}

/// `POST /machine/c2n`: the answer to a question of ours.
pub(crate) async fn accept_answer(body: Body) -> Result<StatusCode, Response> {
    read_body(body, BODY_BYTES_MAX).await.map_err(IntoResponse::into_response)?;
    Ok(StatusCode::OK)
}

/// `GET /machine/whoami`: for `tailscale debug ts2021`.
pub(crate) async fn whoami(Extension(channel): Extension<Channel>) -> String {
    format!("{} capability version {}\n", channel.machine_key, channel.version.0)
}

/// Endpoints of features that are not here: clients show the text.
pub(crate) async fn not_offered() -> (StatusCode, &'static str) {
    (StatusCode::NOT_IMPLEMENTED, "this feature is not offered by this server")
}
