//! `GET /ts2021`: the channel over a WebSocket, as clients in a browser open it.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_noise::{RESPONSE_BYTES, Transport};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::channel::{HELLO, SETTINGS, initiator};
use crate::http;
use crate::server::{Setup, TestServer, within};

/// Where the type of an HTTP/2 frame is.
const FRAME_TYPE: usize = 3;

async fn open(
    server: &TestServer,
    handshake: &str,
) -> tungstenite::Result<WebSocketStream<TcpStream>> {
    let handshake = handshake.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let url = format!("ws://test/ts2021?X-Tailscale-Handshake={handshake}");
    let mut request = url.into_client_request()?;
    let protocol = HeaderValue::from_static("tailscale-control-protocol");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let (socket, answer) = tokio_tungstenite::client_async(request, server.connect().await).await?;
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "tailscale-control-protocol");
    Ok(socket)
}

/// The next bytes of the stream, in whatever pieces they come.
async fn receive(socket: &mut WebSocketStream<TcpStream>, into: &mut BytesMut, bytes_min: usize) {
    while into.len() < bytes_min {
        let message = within(socket.next()).await.unwrap().unwrap();
        let Message::Binary(bytes) = message else { panic!("{message:?} is no piece of it") };
        into.extend_from_slice(&bytes);
    }
}

#[tokio::test]
async fn channel_over_a_websocket_speaks_http2_both_ways() {
    let server = TestServer::start().await;
    let initiator = initiator(&server, 1);
    let handshake = data_encoding::BASE64.encode(initiator.initiation());
    let mut socket = open(&server, &handshake).await.unwrap();

    let mut received = BytesMut::new();
    receive(&mut socket, &mut received, RESPONSE_BYTES + 1).await;
    let response = received.split_to(RESPONSE_BYTES);
    let Transport { mut sealer, mut opener } = initiator.finish(&response).unwrap();
    let first = opener.open(&mut received).unwrap().expect("the settings leave with the response");
    assert_eq!(first[FRAME_TYPE], SETTINGS, "no early payload comes first");

    let mut sealed = BytesMut::new();
    sealer.seal_into([HELLO], &mut sealed).unwrap();
    // A message is a piece of the stream and need not be a whole record.
    for piece in sealed.chunks(7) {
        socket.send(Message::Binary(piece.to_vec().into())).await.unwrap();
    }
    receive(&mut socket, &mut received, 1).await;
    let answer = opener.open(&mut received).unwrap().expect("a whole record");
    assert_eq!(answer[FRAME_TYPE], SETTINGS, "ours were acknowledged");
}

#[tokio::test]
async fn websocket_without_a_good_handshake_is_refused() {
    let server = TestServer::start().await;
    for handshake in ["", "nonsense!", "AAAA"] {
        match open(&server, handshake).await {
            Err(tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{handshake}");
            }
            other => panic!("{handshake}: {other:?}"),
        }
    }
}

/// A message as clients send it: masked, here with zeros.
fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 0x80 | length][..], &[0; 4], payload].concat()
}

#[tokio::test]
async fn messages_that_make_no_sense_end_the_channel() {
    let handshake_timeout = Duration::from_millis(500);
    let server = TestServer::start_as(Setup { handshake_timeout, ..Setup::default() }).await;
    let huge = [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes()[..], &[0; 4]].concat();
    for nonsense in [
        message(2, b"no record"),
        message(2, &[4, 0, 16]),
        message(1, b"nobody reads text"),
        message(1, &[0xff, 0xfe]),
        message(7, b"no such kind"),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        huge,
    ] {
        let handshake = data_encoding::BASE64.encode(initiator(&server, 1).initiation());
        let mut socket = open(&server, &handshake).await.unwrap();
        socket.get_mut().write_all(&nonsense).await.unwrap();
        http::rest(socket.get_mut()).await;
    }
    server.until(|server| server.channels() == 0).await;
}
