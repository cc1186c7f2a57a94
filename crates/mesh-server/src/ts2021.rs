//! `/ts2021`: from an HTTP request to a Noise channel with HTTP/2 inside.
//!
//! Source: tailscale `control/controlhttp/controlhttpserver`, `control/ts2021`.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_keys::ChallengePublic;
use mesh_noise::{Accepted, early_payload};
use mesh_noise_io::NoiseStream;
use mesh_wire::CapabilityVersion;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::App;
use crate::limits::silence;
use crate::listen::Peer;
use crate::machine::{self, Channel};
use crate::websocket::{MESSAGE_BYTES_MAX, WebSocketStream};

/// What the request upgrades to; clients compare the answer with it exactly.
const UPGRADE: &str = "tailscale-control-protocol";

/// Where the initiation of the handshake is.
const HANDSHAKE_HEADER: &str = "x-tailscale-handshake";

/// Streams that a client may have open at once in its one connection.
const STREAMS_MAX: u32 = 100;

/// Largest header list of a request, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// Streams that a client may reset before they were served, before it is taken for an attack.
const RESET_STREAMS_MAX: usize = 100;

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
}

impl IntoResponse for UpgradeError {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.to_string()).into_response()
    }
}

/// Answers the handshake, and goes on with the connection once HTTP has let go of it.
pub(crate) async fn upgrade(
    State(app): State<App>,
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
    let accepted = respond(&app, initiation).await?;
    let tracker = app.channels.clone();
    tracker.spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            run_channel(app, TokioIo::new(upgraded), accepted, peer, challenge()).await;
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
async fn respond(app: &App, initiation: Vec<u8>) -> Result<Accepted, UpgradeError> {
    let since = Instant::now();
    let accepted = respond_in_turn(app, initiation).await;
    app.metrics.handshake(accepted.is_ok(), since.elapsed());
    accepted
}

async fn respond_in_turn(app: &App, initiation: Vec<u8>) -> Result<Accepted, UpgradeError> {
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
pub(crate) async fn upgrade_websocket(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
    peer: Option<Extension<Peer>>,
    socket: WebSocketUpgrade,
) -> Result<Response, UpgradeError> {
    let of_handshake = |name: &&String| name.eq_ignore_ascii_case(HANDSHAKE_HEADER);
    let name = query.keys().find(of_handshake).ok_or(UpgradeError::Handshake)?;
    let initiation = decode(query[name].as_bytes()).ok_or(UpgradeError::Handshake)?;
    let accepted = respond(&app, initiation).await?;
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    let upgraded = socket.protocols([UPGRADE]).max_message_size(MESSAGE_BYTES_MAX).on_upgrade(
        async move |socket| {
            let channels = app.channels.clone();
            let channel = run_channel(app, WebSocketStream::new(socket), accepted, peer, None);
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
    app: App,
    io: IO,
    accepted: Accepted,
    peer: Peer,
    challenge: Option<ChallengePublic>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
    let (requested, first_request) = watch::channel(());
    let router = machine::router(app.clone());
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        requested.send_replace(());
        serve_request(router.clone(), channel.clone(), request)
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = silence(app.first_request_timeout, first_request) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a channel broke");
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
