//! Channels by hand: the handshake, the records and the HTTP/2 frames of a client that does as it pleases.

use std::convert::Infallible;

use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_noise::{Early, Initiator, RESPONSE_BYTES, Transport, parse_early_payload};
use mesh_noise_io::NoiseStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::{self, Answer};
use crate::server::{TestServer, VERSION, machine_private, within};

/// What a client sends first in HTTP/2: the preface, and settings that change nothing.
pub(crate) const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) type Channel = NoiseStream<TcpStream>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A handshake by the machine of this number.
pub(crate) fn initiator(server: &TestServer, machine: u8) -> Initiator {
    let version = VERSION.0.try_into().unwrap();
    Initiator::new(&machine_private(machine), &server.noise_key, version).unwrap()
}

/// Asks for an upgrade with this handshake header and, for a proxy's sake, more headers.
pub(crate) async fn ask_for_upgrade(
    server: &TestServer,
    handshake: &str,
    headers: &str,
) -> (TcpStream, Answer) {
    let mut stream = server.connect().await;
    let request = format!(
        "POST /ts2021 HTTP/1.1\r\nHost: test\r\nUpgrade: tailscale-control-protocol\r\n\
         Connection: upgrade\r\nX-Tailscale-Handshake: {handshake}\r\n{headers}\r\n"
    );
    let answer = http::ask(&mut stream, &request).await;
    (stream, answer)
}

/// Upgrades with this initiation; gives the server's response to it as well.
pub(crate) async fn upgrade(
    server: &TestServer,
    initiation: &[u8],
    headers: &str,
) -> (TcpStream, [u8; RESPONSE_BYTES]) {
    let handshake = data_encoding::BASE64.encode(initiation);
    let (mut stream, answer) = ask_for_upgrade(server, &handshake, headers).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let mut response = [0; RESPONSE_BYTES];
    within(stream.read_exact(&mut response)).await.unwrap();
    (stream, response)
}

/// Opens a channel as far as the keys.
pub(crate) async fn handshake(server: &TestServer, machine: u8) -> (TcpStream, Transport) {
    let initiator = initiator(server, machine);
    let (stream, response) = upgrade(server, initiator.initiation(), "").await;
    (stream, initiator.finish(&response).unwrap())
}

/// Opens a channel, as far as HTTP/2 begins. `headers` go with the upgrade.
pub(crate) async fn open(server: &TestServer, machine: u8, headers: &str) -> Channel {
    let initiator = initiator(server, machine);
    let (stream, response) = upgrade(server, initiator.initiation(), headers).await;
    let mut channel = NoiseStream::new(stream, initiator.finish(&response).unwrap());
    let mut early = Vec::new();
    while !matches!(parse_early_payload(&early).unwrap(), Early::Present { .. }) {
        early.push(within(channel.read_u8()).await.unwrap());
    }
    channel
}

/// An HTTP/2 client in a channel that says whom it is forwarded for.
pub(crate) struct Forwarded(http2::SendRequest<Body>);

impl Forwarded {
    /// Opens a channel through a proxy for a client of this address.
    pub(crate) async fn connect(server: &TestServer, machine: u8, client: &str) -> Self {
        let headers = format!("X-Forwarded-For: {client}\r\n");
        Self::over(open(server, machine, &headers).await).await
    }

    /// Begins HTTP/2 in a channel.
    pub(crate) async fn over(channel: Channel) -> Self {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(channel)).await.unwrap();
        tokio::spawn(async move {
            // A server that hangs up is what some tests want.
            let _ = connection.await;
        });
        Self(sender)
    }

    /// Posts a whole body.
    pub(crate) async fn post(&mut self, path: &str, body: String) -> (StatusCode, HeaderMap) {
        self.post_body(path, Full::new(Bytes::from(body)).boxed_unsync()).await
    }

    /// Posts whatever body, and waits for the answer as long as it takes.
    pub(crate) async fn post_body(&mut self, path: &str, body: Body) -> (StatusCode, HeaderMap) {
        let request = Request::post(format!("https://test{path}")).body(body).unwrap();
        let answer = self.send(request).await.unwrap();
        (answer.status(), answer.headers().clone())
    }

    /// Sends whatever request.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        self.0.send_request(request).await
    }
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a `POST` in HPACK, all of them literal, and more after them.
pub(crate) fn post_headers(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // Index 3 of the static table is `:method: POST`, 7 `:scheme: https`; 1 and 4 are names alone.
    let mut block = vec![0x83, 0x87, 0x01];
    push_text(&mut block, "test");
    block.push(0x04);
    push_text(&mut block, path);
    for (name, value) in more {
        block.push(0x00);
        push_text(&mut block, name);
        push_text(&mut block, value);
    }
    block
}

/// A length of seven bits and its continuation, then the text.
fn push_text(block: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if let Some(beyond) = rest.checked_sub(127) {
        block.push(127);
        rest = beyond;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend_from_slice(text.as_bytes());
}

/// The header of a frame that came: its kind, and its stream.
pub(crate) type Came = (u8, u32);

/// Reads frames until the server has closed the connection.
pub(crate) async fn frames_until_closed(channel: &mut Channel) -> Vec<Came> {
    let rest = http::rest(channel).await;
    let mut frames = Vec::new();
    let mut rest = BytesMut::from(&*rest);
    while let Some(came) = take_frame(&mut rest) {
        frames.push(came);
    }
    frames
}

fn take_frame(bytes: &mut BytesMut) -> Option<Came> {
    let &[a, b, c, kind, _, s0, s1, s2, s3] = bytes.first_chunk::<9>()?;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
    let _ = bytes.split_to((9 + length).min(bytes.len()));
    Some((kind, u32::from_be_bytes([s0, s1, s2, s3])))
}

/// Reads the next frame.
pub(crate) async fn next_frame(channel: &mut (impl AsyncRead + Unpin)) -> Came {
    let mut header = [0; 9];
    within(channel.read_exact(&mut header)).await.unwrap();
    let mut header = BytesMut::from(&header[..]);
    let length =
        usize::from(header[2]) | usize::from(header[1]) << 8 | usize::from(header[0]) << 16;
    let mut payload = vec![0; length];
    within(channel.read_exact(&mut payload)).await.unwrap();
    take_frame(&mut header).unwrap()
}

/// Writes and flushes. The server may have hung up, which tells more when read.
pub(crate) async fn send(channel: &mut Channel, bytes: &[u8]) {
    if channel.write_all(bytes).await.is_ok() {
        let _ = channel.flush().await;
    }
}
