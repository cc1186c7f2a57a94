//! `/ts2021`: from an HTTP request to a Noise channel with HTTP/2 inside.
//!
//! Source: tailscale `control/controlhttp/controlhttpserver`, `control/ts2021`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_keys::ChallengePublic;
use mesh_noise::{Accepted, early_payload};
use mesh_noise_io::{NoiseStream, http2};
use mesh_wire::CapabilityVersion;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::App;
use crate::listen::Peer;
use crate::machine::{self, Channel};
use crate::websocket::{MESSAGE_BYTES_MAX, WebSocketStream};

/// What the request upgrades to; clients compare the answer with it exactly.
const UPGRADE: &str = "tailscale-control-protocol";

/// Where the initiation of the handshake is.
const HANDSHAKE_HEADER: &str = "x-tailscale-handshake";

/// Handshakes that wait to be computed; whoever comes then is to come again.
const HANDSHAKES_WAITING_MAX: usize = 4096;

/// Why a request does not become a channel.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    #[error("this address speaks `Upgrade: {UPGRADE}` only")]
    NotAnUpgrade,
    #[error("missing or malformed X-Tailscale-Handshake header")]
    Handshake,
    #[error("handshake failed: {0}")]
    Noise(#[from] mesh_noise::HandshakeError),
    #[error("the connection cannot be upgraded")]
    Connection,
    #[error("too many handshakes wait: try again")]
    Busy,
}

impl IntoResponse for UpgradeError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotAnUpgrade | Self::Handshake | Self::Noise(_) | Self::Connection => {
                StatusCode::BAD_REQUEST
            }
        };
        (status, [(header::CONNECTION, "close")], self.to_string()).into_response()
    }
}

/// What all channels begin with. Clones share all.
#[derive(Clone)]
pub(crate) struct Front {
    app: App,
    /// What is served inside.
    inside: Router,
    /// Places of handshakes that wait.
    waiting: Arc<Semaphore>,
}

/// The way into channels.
pub(crate) fn router<S>(app: App) -> Router<S> {
    let inside = machine::router(app.clone());
    let waiting = Arc::new(Semaphore::new(HANDSHAKES_WAITING_MAX));
    Router::new().route("/ts2021", post(upgrade).get(upgrade_websocket)).with_state(Front {
        app,
        inside,
        waiting,
    })
}

/// Answers the handshake, and goes on with the connection once HTTP has let go of it.
async fn upgrade(
    State(front): State<Front>,
    mut request: Request,
) -> Result<Response, UpgradeError> {
    let wanted = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(UPGRADE)) {
        return Err(UpgradeError::NotAnUpgrade);
    }
    let initiation = initiation(request.headers()).ok_or(UpgradeError::Handshake)?;
    let peer = request.extensions_mut().remove::<Peer>().unwrap_or_default();
    let on_upgrade =
        request.extensions_mut().remove::<OnUpgrade>().ok_or(UpgradeError::Connection)?;
    let accepted = respond(&front, initiation).await?;
    let tracker = front.app.channels.clone();
    tracker.spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            run_channel(front, TokioIo::new(upgraded), accepted, peer, challenge()).await;
        }
    });
    let headers = [
        (header::UPGRADE, HeaderValue::from_static(UPGRADE)),
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Computes the handshake off the reactor, a bounded number at once: whoever comes in a flood waits for each
/// other and not everybody else for them.
async fn respond(front: &Front, initiation: Vec<u8>) -> Result<Accepted, UpgradeError> {
    let since = Instant::now();
    let accepted = respond_in_turn(front, initiation).await;
    front.app.metrics.handshake(accepted.is_ok(), since.elapsed());
    accepted
}

async fn respond_in_turn(front: &Front, initiation: Vec<u8>) -> Result<Accepted, UpgradeError> {
    let _place = front.waiting.try_acquire().map_err(|_| UpgradeError::Busy)?;
    let app = &front.app;
    let permit =
        app.handshakes.clone().acquire_owned().await.map_err(|_| UpgradeError::Connection)?;
    let responder = app.responder.clone();
    let computed = tokio::task::spawn_blocking(move || {
        let accepted = responder.respond(&initiation);
        drop(permit);
        accepted
    });
    Ok(computed.await.map_err(|_| UpgradeError::Connection)??)
}

/// The same for clients in a browser: a WebSocket carries the channel, and the initiation is in the query. No
/// early payload is sent, as no client expects one here.
///
/// Source: tailscale `control/controlhttp/controlhttpserver`, `acceptWebsocket`; `client_js.go`.
async fn upgrade_websocket(
    State(front): State<Front>,
    Query(query): Query<HashMap<String, String>>,
    peer: Option<Extension<Peer>>,
    socket: WebSocketUpgrade,
) -> Result<Response, UpgradeError> {
    let of_handshake = |name: &&String| name.eq_ignore_ascii_case(HANDSHAKE_HEADER);
    let name = query.keys().find(of_handshake).ok_or(UpgradeError::Handshake)?;
    let initiation = decode(query[name].as_bytes()).ok_or(UpgradeError::Handshake)?;
    let accepted = respond(&front, initiation).await?;
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    let upgraded = socket.protocols([UPGRADE]).max_message_size(MESSAGE_BYTES_MAX).on_upgrade(
        async move |socket| {
            let channels = front.app.channels.clone();
            let channel = run_channel(front, WebSocketStream::new(socket), accepted, peer, None);
            channels.track_future(channel).await;
        },
    );
    Ok(upgraded)
}

fn initiation(headers: &HeaderMap) -> Option<Vec<u8>> {
    decode(headers.get(HANDSHAKE_HEADER)?.as_bytes())
}

fn decode(value: &[u8]) -> Option<Vec<u8>> {
    // Base64 is a third longer than what it says; whatever is far longer is no initiation.
    if value.len() > 2 * mesh_noise::INITIATION_BYTES {
        return None;
    }
    data_encoding::BASE64.decode(value).ok()
}

/// Serves HTTP/2 inside a channel until either side ends it.
async fn run_channel<IO>(
    front: Front,
    io: IO,
    accepted: Accepted,
    peer: Peer,
    challenge: Option<ChallengePublic>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Front { app, inside, .. } = front;
    let Accepted { peer: machine_key, version, response, transport } = accepted;
    let mut stream = NoiseStream::answering(io, &response, transport);
    // The response, the early payload and HTTP/2's settings leave in one write.
    if let Some(challenge) = challenge
        && stream.write_all(&early_payload(&challenge)).await.is_err()
    {
        return;
    }
    let version = CapabilityVersion(version.into());
    let channel = Channel::new(machine_key, version, peer.address, peer.slot);
    // A request is done with long before its answer has ended, if that is a map stream: its own memory should go.
    let service = service_fn(move |request| {
        Box::pin(serve_request(inside.clone(), channel.clone(), request))
    });
    let ended = http2::serve(stream, service, app.timeouts, app.stop.clone()).await;
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a channel broke");
    }
}

async fn serve_request(
    router: Router,
    channel: Channel,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(channel);
    router.oneshot(request).await
}

/// A fresh challenge. No client answers it, so nothing of it is kept.
fn challenge() -> Option<ChallengePublic> {
    let key = mesh_keys::NodePrivate::generate().ok()?;
    Some(ChallengePublic::from_bytes(*key.public().as_bytes()))
}
