//! `GET /ts2021`: the channel over a WebSocket, as clients in a browser open it.

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_noise::{RESPONSE_BYTES, Transport};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::channel::{HELLO, SETTINGS, initiator};
use crate::server::{TestServer, within};

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
    let (socket, answer) =
        tokio_tungstenite::client_async(request, server.connect().await).await?;
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "tailscale-control-protocol");
    Ok(socket)
}

/// The next bytes of the stream, in whatever pieces they come.
async fn receive(socket: &mut WebSocketStream<TcpStream>, into: &mut BytesMut, bytes_min: usize) {
    while into.len() < bytes_min {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(bytes) => into.extend_from_slice(&bytes),
            other => panic!("{other:?} is no piece of the stream"),
        }
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
