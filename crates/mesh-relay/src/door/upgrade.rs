//! What a connection becomes after a request for `/derp`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use data_encoding::BASE64;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use mesh_keys::NodePublic;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{Answer, hex_of, with_status};
use crate::connection::{self, ConnectionError};
use crate::link::Link;
use crate::places::Place;
use crate::relay::Shared;
use crate::websocket::WebSocket;

/// What the server of a WebSocket appends to the client's key before it hashes both.
///
/// Source: RFC 6455, section 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a client's key.
const WEBSOCKET_KEY_BYTES: usize = 16;

/// The one version of the WebSocket protocol that there is.
const WEBSOCKET_VERSION: &str = "13";

/// How the bytes of DERP's frames are carried after an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// As they are.
    Derp,
    /// In the binary messages of a WebSocket, as clients in a browser have to.
    WebSocket,
}

impl Upgrade {
    /// Serves a connection from its upgrade to its end. `input` holds what was read already, `out` the answer that is
    /// still to be written.
    pub(crate) async fn serve(
        self,
        shared: Arc<Shared>,
        link: impl Link,
        input: BytesMut,
        out: Vec<u8>,
        place: Place,
    ) -> Result<(), ConnectionError> {
        match self {
            Self::Derp => Box::pin(connection::serve(shared, link, input, out, place)).await,
            Self::WebSocket => {
                shared.stats.websockets.fetch_add(1, Ordering::Relaxed);
                let (link, input) = WebSocket::new(link, &input, out);
                let serve = connection::serve(shared, link, input, Vec::new(), place);
                Box::pin(serve).await
            }
        }
    }
}

/// Upgrades a request for `/derp`. Clients of old say `websocket` and mean DERP; those that mean it name the
/// subprotocol `derp`.
pub(super) fn answer<B>(relay: &NodePublic, request: &Request<B>) -> Answer {
    let upgrade = request.headers().get(header::UPGRADE).map_or(&[][..], HeaderValue::as_bytes);
    let is_websocket = upgrade.eq_ignore_ascii_case(b"websocket");
    if is_websocket && names_derp(request.headers()) {
        return answer_websocket(request);
    }
    if !is_websocket && !upgrade.eq_ignore_ascii_case(b"DERP") {
        let body = "DERP requires connection upgrade\n";
        let mut response = with_status(StatusCode::UPGRADE_REQUIRED, body);
        insert_derp(relay, response.headers_mut());
        return response.into();
    }
    let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS, "");
    insert_derp(relay, response.headers_mut());
    Answer { response, upgrade: Some(Upgrade::Derp) }
}

fn insert_derp(relay: &NodePublic, headers: &mut HeaderMap) {
    headers.insert(header::UPGRADE, HeaderValue::from_static("DERP"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert("derp-version", HeaderValue::from(mesh_derp::PROTOCOL_VERSION));
    if let Ok(key) = HeaderValue::from_str(&hex_of(relay)) {
        headers.insert("derp-public-key", key);
    }
}

/// Whether one of the subprotocols that the client offers is ours.
fn names_derp(headers: &HeaderMap) -> bool {
    headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(|line| {
        line.as_bytes().split(|byte| *byte == b',').any(|name| name.trim_ascii() == b"derp")
    })
}

/// From any page: what is behind is no secret of the browser's user. Without compression, for packets are random.
///
/// Source: RFC 6455, section 4.2.
fn answer_websocket<B>(request: &Request<B>) -> Answer {
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|value| value != WEBSOCKET_VERSION) {
        let mut response =
            with_status(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here\n");
        let version = HeaderValue::from_static(WEBSOCKET_VERSION);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        return response.into();
    }
    let accepted = headers.get(header::SEC_WEBSOCKET_KEY).and_then(accept_key);
    let (&Method::GET, Some(accepted)) = (request.method(), accepted) else {
        return with_status(StatusCode::BAD_REQUEST, "no WebSocket handshake\n").into();
    };
    let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("derp"));
    Answer { response, upgrade: Some(Upgrade::WebSocket) }
}

/// Proves to a client that we have read its key; `None` if it is none.
fn accept_key(key: &HeaderValue) -> Option<HeaderValue> {
    let key = key.as_bytes();
    let decoded = BASE64.decode(key).ok()?;
    if decoded.len() != WEBSOCKET_KEY_BYTES {
        return None;
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, WEBSOCKET_GUID].concat());
    HeaderValue::from_str(&BASE64.encode(hash.as_ref())).ok()
}

impl From<Response<&'static str>> for Answer {
    fn from(response: Response<&'static str>) -> Self {
        Self { response, upgrade: None }
    }
}
