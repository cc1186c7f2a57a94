//! `POST /machine/map`: a node opens its map stream, or tells what changed about it.

use std::convert::Infallible;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use mesh_model::Node;
use mesh_netmap::deleted_node;
use mesh_state::{Command, Outcome};
use mesh_store::SubmitError;
use mesh_streamer::{Compression, MapStream, Message};
use mesh_wire::{CapabilityVersion, MapRequest};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::Channel;
use super::channel::{BodyError, read_json};
use super::from_wire;
use super::identity::{IdentityError, identify};
use crate::App;
use crate::limits::retry_soon;

/// Why a map request was refused.
#[derive(Debug, Error)]
pub(crate) enum MapError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this client is too old: update it to Tailscale 1.80 or newer")]
    TooOld,
    #[error("unknown compression `{0}`: ask for zstd or none")]
    Compression(String),
    #[error("the node changed meanwhile: try again")]
    Overtaken,
    #[error("too many requests: try again in a moment")]
    Busy,
    #[error("the server cannot take requests now")]
    Unavailable,
}

impl IntoResponse for MapError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Body(error) => return error.into_response(),
            Self::Identity(error) => return error.into_response(),
            Self::TooOld | Self::Compression(_) => StatusCode::BAD_REQUEST,
            Self::Overtaken => StatusCode::CONFLICT,
            Self::Busy => return retry_later(StatusCode::TOO_MANY_REQUESTS, &self),
            Self::Unavailable => return retry_later(StatusCode::SERVICE_UNAVAILABLE, &self),
        };
        (status, self.to_string()).into_response()
    }
}

/// Clients back off by themselves; proxies and people read when.
fn retry_later(status: StatusCode, error: &MapError) -> Response {
    (status, [(header::RETRY_AFTER, retry_soon().to_string())], error.to_string()).into_response()
}

/// Answers the three kinds of map requests: the stream, the lite update, and the single map.
pub(crate) async fn map(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<Response, MapError> {
    let request: MapRequest = read_json(body, app.bodies.map).await?;
    if request.version < CapabilityVersion::MIN_SUPPORTED {
        return Err(MapError::TooOld);
    }
    let compression = compression(&request.compress)?;
    let node = match identify(&app.store.snapshot(), &channel, request.node_key) {
        Ok(node) => node,
        // A refusal would leave the client believing that all is well; an expired key makes it log in.
        Err(IdentityError::Deleted(tombstone)) if request.stream => {
            let context = app.contexts.borrow().clone();
            let message = deleted_node(&tombstone, app.clock.now(), &context);
            let message = app.streamer.encode(&message, compression);
            return Ok(map_response(held(&message, &app.stop)));
        }
        Err(error) => return Err(error.into()),
    };
    if request.stream {
        let stream = open(&app, &node, &request, compression).await?;
        return Ok(map_response(Body::from_stream(stream.into_body())));
    }
    if request.omit_peers && !request.read_only {
        let update = from_wire::node_update(node.id, &request);
        app.store.submit_soft(Command::UpdateNode(Box::new(update)));
        return Ok(StatusCode::OK.into_response());
    }
    let message = app.streamer.once(node.id, compression).ok_or(IdentityError::Unknown)?;
    Ok(map_response(Body::from_stream(pieces(&message))))
}

fn compression(name: &str) -> Result<Compression, MapError> {
    match name {
        "" => Ok(Compression::None),
        "zstd" => Ok(Compression::Zstd),
        other => Err(MapError::Compression(other.chars().take(32).collect())),
    }
}

/// Connects the node and opens its stream. In a task of its own: should the client go away meanwhile, the
/// stream is made and dropped all the same, and the node does not stay online.
async fn open(
    app: &App,
    node: &Node,
    request: &MapRequest,
    compression: Compression,
) -> Result<MapStream, MapError> {
    let (store, streamer, id) = (app.store.clone(), app.streamer.clone(), node.id);
    let connect =
        Command::Connect { node: id, node_key: request.node_key, disco_key: request.disco_key };
    let opened = tokio::spawn(async move {
        match store.submit(connect).await {
            Ok(Outcome::Connected(session)) => Ok(streamer.open(id, session, compression)),
            Err(SubmitError::Busy) => Err(MapError::Busy),
            Err(SubmitError::Unavailable(_) | SubmitError::TimedOut | SubmitError::Closed) => {
                Err(MapError::Unavailable)
            }
            _ => Err(MapError::Overtaken),
        }
    });
    let stream = opened.await.map_err(|_| MapError::Unavailable)??;
    tracing::info!(
        node.id = id.0,
        node.name = node.given_name,
        client.capver = request.version.0,
        "map stream opened"
    );
    Ok(stream)
}

/// A frame and then silence until the server stops: at the end of a stream the client would ask again at once,
/// dozens of times a second, whatever it was told. Without keep-alives it hangs up by itself after two minutes.
fn held(message: &Message, stop: &CancellationToken) -> Body {
    let stop = stop.clone().cancelled_owned();
    Body::from_stream(pieces(message).chain(stream::pending()).take_until(stop))
}

fn pieces(message: &Message) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    stream::iter(message.to_vec()).map(Ok)
}

/// Proxies must not hold frames back.
fn map_response(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}
