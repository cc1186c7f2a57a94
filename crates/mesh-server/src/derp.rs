//! The relay's door in our own listener: open while we have a certificate that clients know.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::{App, Peer};

/// `/derp`, `/derp/probe`, `/derp/latency-check`, `/generate_204`: the relay knows the answers.
pub(crate) async fn derp(State(app): State<App>, mut request: Request) -> Response {
    let Some(relay) = app.relay.clone() else { return StatusCode::NOT_FOUND.into_response() };
    let Some(answer) = relay.answer(&request) else { return StatusCode::NOT_FOUND.into_response() };
    if let Some(upgrade) = answer.upgrade {
        let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return StatusCode::UPGRADE_REQUIRED.into_response();
        };
        // Of the address alone anything depends.
        let address = request.extensions().get::<Peer>().and_then(|peer| peer.address);
        let remote = address.map(|address| SocketAddr::new(address, 0));
        app.channels.spawn(async move {
            if let Ok(upgraded) = on_upgrade.await {
                relay.serve_upgraded(TokioIo::new(upgraded), upgrade, remote).await;
            }
        });
    }
    answer.response.map(Body::from)
}
