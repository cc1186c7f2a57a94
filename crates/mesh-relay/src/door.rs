//! What a relay answers over HTTP, and as much of an HTTP/1.1 server as it needs itself.
//!
//! The main server's HTTP stack always answers an upgrade. Clients in a hurry want no answer (fast start),
//! which is why the relay's own door reads request heads with hyper's parser and writes these few answers.
//!
//! Source: tailscale `derp/derpserver/handler.go`, `cmd/derper/derper.go`.

mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use mesh_keys::NodePublic;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

pub use self::upgrade::Upgrade;
use crate::connection::{ConnectionError, read_more};
use crate::link::Link;
use crate::places::Place;
use crate::relay::Shared;
use crate::writer::{WRITE_DEADLINE, write_all};

/// How long a request may take to arrive and be answered, however many bytes it sends.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most header lines of a request.
const HEADERS_MAX: usize = 64;

/// Requests that one connection may make: clients that measure the relay make two.
const REQUESTS_MAX: usize = 16;

/// Longest challenge of a captive-portal check, in characters.
const CHALLENGE_CHARS_MAX: usize = 64;

/// What keeps an answer of `/generate_204` from being stored on its way.
const NO_CACHE: &str = "no-cache, no-store, must-revalidate, no-transform, max-age=0";

/// What people find who look.
const HOME_PAGE: &str = "This is a DERP relay: it passes encrypted packets between the nodes of a tailnet that \
    cannot reach each other directly.\n";

/// What a relay answers to a request.
#[derive(Debug)]
pub struct Answer {
    /// The answer itself.
    pub response: Response<&'static str>,
    /// What the connection becomes with it: there if its status is 101.
    pub upgrade: Option<Upgrade>,
}

/// Answers a request for one of the relay's paths; see [`crate::Relay::answer`].
pub(crate) fn answer<B>(relay: &NodePublic, request: &Request<B>) -> Option<Answer> {
    let response = match request.uri().path() {
        "/derp" => return Some(upgrade::answer(relay, request)),
        "/derp/probe" | "/derp/latency-check" => answer_probe(request.method()),
        "/generate_204" => answer_no_content(request.headers()),
        "/" => Response::new(HOME_PAGE),
        "/robots.txt" => Response::new("User-agent: *\nDisallow: /\n"),
        _ => return None,
    };
    Some(response.into())
}

fn answer_probe(method: &Method) -> Response<&'static str> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return with_status(StatusCode::METHOD_NOT_ALLOWED, "bogus probe method\n");
    }
    let mut response = Response::new("");
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

/// Proves to a client that nobody answers in the relay's place: a portal would not know to repeat the
/// challenge.
fn answer_no_content(headers: &HeaderMap) -> Response<&'static str> {
    let mut response = with_status(StatusCode::NO_CONTENT, "");
    let challenge = headers.get("x-tailscale-challenge").and_then(|value| value.to_str().ok());
    if let Some(challenge) = challenge.filter(|challenge| is_challenge(challenge))
        && let Ok(value) = HeaderValue::from_str(&format!("response {challenge}"))
    {
        response.headers_mut().insert("x-tailscale-response", value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(NO_CACHE));
    response
}

fn is_challenge(text: &str) -> bool {
    (1..=CHALLENGE_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
}

fn with_status(status: StatusCode, body: &'static str) -> Response<&'static str> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// The 64 digits of a key without the prefix of its kind.
pub(crate) fn hex_of(key: &NodePublic) -> String {
    data_encoding::HEXLOWER.encode(key.as_bytes())
}

/// Answers requests on a connection until one upgrades it, then serves DERP.
///
/// What a step needs is boxed and gone when the next begins: connections stay for days in the last one.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    mut io: impl Link,
    place: Place,
) -> Result<(), ConnectionError> {
    let mut input = BytesMut::new();
    for left in (0..REQUESTS_MAX).rev() {
        let exchange = exchange(&shared, &mut io, &mut input, left > 0);
        match Box::pin(shared.within(&place, HEAD_DEADLINE, exchange)).await? {
            Then::Next => {}
            Then::Close => break,
            Then::Upgrade { upgrade, out } => {
                return upgrade.serve(shared, io, input, out, place).await;
            }
        }
    }
    shared.within(&place, HEAD_DEADLINE, async { Ok(io.shutdown().await?) }).await
}

/// How a connection goes on after a request.
enum Then {
    Next,
    Close,
    Upgrade {
        upgrade: Upgrade,
        /// The answer to the upgrade, to be written before anything else; empty for a fast start.
        out: Vec<u8>,
    },
}

/// Reads one request and answers it.
async fn exchange<IO>(
    shared: &Shared,
    io: &mut IO,
    input: &mut BytesMut,
    may_go_on: bool,
) -> Result<Then, ConnectionError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let request = loop {
        if let Some((request, taken)) = parse_head(input)? {
            input.advance(taken);
            break request;
        }
        if input.len() >= HEAD_BYTES_MAX {
            return Err(ConnectionError::HeadTooLong);
        }
        read_more(io, input).await?;
    };
    let answer = answer(&shared.login.public_key(), &request);
    let Answer { response, upgrade } =
        answer.unwrap_or_else(|| with_status(StatusCode::NOT_FOUND, "404 page not found\n").into());
    if let Some(upgrade) = upgrade {
        let fast_start = request.headers().get("derp-fast-start").is_some_and(|value| value == "1");
        let is_silent = fast_start && upgrade == Upgrade::Derp;
        let out = if is_silent { Vec::new() } else { encode(&request, &response, true) };
        return Ok(Then::Upgrade { upgrade, out });
    }
    let go_on = may_go_on && keeps_alive(&request);
    let written = write_all(io, &encode(&request, &response, go_on), WRITE_DEADLINE).await;
    written.map_err(|_| ConnectionError::WriteTimeout)??;
    Ok(if go_on { Then::Next } else { Then::Close })
}

/// Reads the head of a request at the front of `input`, once all of it is there, and says how long it is.
fn parse_head(input: &[u8]) -> Result<Option<(Request<()>, usize)>, ConnectionError> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut lines);
    let httparse::Status::Complete(taken) = head.parse(input)? else {
        return Ok(None);
    };
    let mut request = Request::builder()
        .method(head.method.unwrap_or_default())
        .uri(head.path.unwrap_or_default())
        .version(if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 })
        .body(())
        .map_err(|_| httparse::Error::Token)?;
    for line in head.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let name = name.map_err(|_| httparse::Error::HeaderName)?;
        let value = HeaderValue::from_bytes(line.value);
        request.headers_mut().append(name, value.map_err(|_| httparse::Error::HeaderValue)?);
    }
    Ok(Some((request, taken)))
}

/// Whether another request may follow: nothing here reads a body, which would be taken for a head.
fn keeps_alive(request: &Request<()>) -> bool {
    let headers = request.headers();
    let says_close = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
    request.version() == Version::HTTP_11
        && !headers.get_all(header::CONNECTION).iter().any(says_close)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|value| value == "0")
}

fn encode(request: &Request<()>, response: &Response<&'static str>, go_on: bool) -> Vec<u8> {
    let status = response.status();
    let mut out = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in response.headers() {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        out.extend_from_slice(&line.concat());
    }
    if !status.is_informational() && status != StatusCode::NO_CONTENT {
        let length = response.body().len();
        out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    if !go_on {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if *request.method() != Method::HEAD {
        out.extend_from_slice(response.body().as_bytes());
    }
    out
}

#[cfg(test)]
mod tests;
