//! What the control server asks the node's own little HTTP server (`c2n`): the bytes of a request in, those of a response out.
//!
//! Who may ask is settled before: only the control server's map stream carries such questions. Who posts the response is
//! not told here.
//!
//! Source: tailscale `ipn/ipnlocal/c2n.go`, `feature/c2n/c2n.go`.

use thiserror::Error;

/// Most headers that a request may have.
const HEADERS_MAX: usize = 64;

/// Most bytes of a request. What comes back is hardly longer.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// What a node without tailnet services tells of them. Such a node's `Hostinfo` has no hash of them either.
const NO_SERVICES_JSON: &str = r#"{"ServicesHash":""}"#;

/// Why a request has no response at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum UnreadableRequest {
    #[error("request of the control server longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    #[error("request of the control server is not HTTP")]
    Malformed,
}

/// The response to a request, both as HTTP/1.1 writes them.
///
/// Answered are `/echo`, by which servers find out whether a node is alive, and `GET /vip-services`; anything else is refused.
pub(crate) fn respond(request: &[u8]) -> Result<Vec<u8>, UnreadableRequest> {
    let Request { method, path, body } = parse(request)?;
    Ok(match (path, method) {
        ("/echo", _) => response("200 OK", "text/plain; charset=utf-8", body),
        ("/vip-services", "GET") => {
            response("200 OK", "application/json", NO_SERVICES_JSON.as_bytes())
        }
        ("/vip-services", _) => refusal("405 Method Not Allowed", "not by this method\n"),
        _ => refusal("400 Bad Request", "this node does not answer that\n"),
    })
}

#[derive(Debug)]
struct Request<'a> {
    method: &'a str,
    /// Without its query.
    path: &'a str,
    body: &'a [u8],
}

fn parse(bytes: &[u8]) -> Result<Request<'_>, UnreadableRequest> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(UnreadableRequest::TooLong);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|_| UnreadableRequest::Malformed)?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Err(UnreadableRequest::Malformed);
    };
    let (Some(method), Some(target)) = (head.method, head.path) else {
        return Err(UnreadableRequest::Malformed);
    };
    let length = body_bytes(head.headers)?;
    let body = &bytes[head_bytes..];
    let body = body.get(..length).ok_or(UnreadableRequest::Malformed)?;
    let path = target.split('?').next().unwrap_or(target);
    Ok(Request { method, path, body })
}

/// The length of the body. A request that does not tell it has none; one in chunks is not read.
fn body_bytes(headers: &[httparse::Header<'_>]) -> Result<usize, UnreadableRequest> {
    let find = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if find("transfer-encoding").is_some() {
        return Err(UnreadableRequest::Malformed);
    }
    let Some(length) = find("content-length") else { return Ok(0) };
    let length = str::from_utf8(length.value).ok().and_then(|length| length.trim().parse().ok());
    length.ok_or(UnreadableRequest::Malformed)
}

fn refusal(status: &str, text: &str) -> Vec<u8> {
    response(status, "text/plain; charset=utf-8", text.as_bytes())
}

fn response(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests;
