//! Clients in a browser.

use std::sync::atomic::Ordering;

use futures_util::{SinkExt, StreamExt};
use mesh_derp::PeerGoneReason;
use mesh_relay::{Refusal, Relay, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::{Client, Event, join, node, relay};

/// Longest message that a stock client takes, in bytes.
const STOCK_MESSAGE_BYTES_MAX: usize = 32 << 10;

/// Opens a WebSocket at the relay's own door, with room for so many bytes on its way.
async fn open(relay: &Relay, bytes: usize) -> WebSocketStream<DuplexStream> {
    let (ours, theirs) = duplex(bytes);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_connection(theirs, None).await });
    let mut request = "ws://relay.example/derp".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("derp"));
    client_async(request, ours).await.expect("a handshake").0
}

/// The stream within a WebSocket, in messages of any length.
fn stream_of(mut socket: WebSocketStream<DuplexStream>, message_bytes: usize) -> DuplexStream {
    let (near, mut far) = duplex(64 << 10);
    tokio::spawn(async move {
        let mut buffer = vec![0; message_bytes];
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        assert!(bytes.len() <= STOCK_MESSAGE_BYTES_MAX);
                        far.write_all(&bytes).await.expect("the test reads");
                    }
                    Some(Ok(Message::Pong(_))) => {}
                    _ => break,
                },
                read = far.read(&mut buffer) => match read {
                    Ok(length @ 1..) => {
                        let message = Message::binary(buffer[..length].to_vec());
                        if socket.send(message).await.is_err() {
                            break;
                        }
                        // Between the messages, where they belong.
                        let _ = socket.send(Message::Ping("ping".into())).await;
                    }
                    _ => break,
                },
            }
        }
    });
    near
}

#[tokio::test]
async fn a_browser_and_a_node_talk() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    for (number, pipe_bytes, message_bytes) in
        [(2, 64 << 10, 64 << 10), (3, 64 << 10, 1), (4, 50, 1000)]
    {
        let stream = stream_of(open(&relay, pipe_bytes).await, message_bytes);
        let mut bob = Client::log_in(stream, &node(number)).await.expect("login");
        for payload in [&b"hello"[..], b"", &[7; 1400], &[8; 3000]] {
            bob.send(alice.key, payload).await;
            alice.expect(Event::Packet(bob.key, payload.to_vec())).await;
        }
        for payload in [&b"hello"[..], b"", &[7; 1400], &vec![8; 65_536]] {
            alice.send(bob.key, payload).await;
            bob.expect(Event::Packet(alice.key, payload.to_vec())).await;
        }
        bob.expect_silence().await;
        drop(bob);
        let gone = node(number).public();
        alice.expect(Event::Gone(gone, PeerGoneReason::Disconnected)).await;
    }
    assert_eq!(relay.stats().websockets.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn another_server_may_do_the_handshake() {
    let relay = relay();
    let (ours, theirs) = duplex(64 << 10);
    let serving = relay.clone();
    tokio::spawn(async move { serving.serve_upgraded(theirs, Upgrade::WebSocket, None).await });
    let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let mut alice = Client::log_in(stream_of(socket, 100), &node(1)).await.expect("login");
    alice.expect_silence().await;
}

/// Reads messages until the end, and gives those that are no part of the stream.
async fn others(socket: &mut WebSocketStream<DuplexStream>) -> Vec<Message> {
    let mut others = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_binary() {
            others.push(message);
        }
    }
    others
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_repeated() {
    let relay = relay();
    let mut socket = open(&relay, 4096).await;
    socket.send(Message::Ping("are you there?".into())).await.expect("the relay reads");
    let greeting = socket.next().await.expect("a message").expect("a message");
    assert!(greeting.is_binary());
    let pong = socket.next().await.expect("a message").expect("a message");
    assert_eq!(pong, Message::Pong("are you there?".into()));

    let leaving = CloseFrame { code: CloseCode::Away, reason: "".into() };
    socket.close(Some(leaving.clone())).await.expect("the relay reads");
    assert_eq!(others(&mut socket).await, [Message::Close(Some(leaving))]);
    assert_eq!(relay.stats().refused(Refusal::WebSocket).load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn text_is_refused_with_the_code_for_it() {
    let relay = relay();
    let mut socket = open(&relay, 4096).await;
    socket.send(Message::text("text")).await.expect("the relay reads");
    let others = others(&mut socket).await;
    let [Message::Close(Some(frame))] = &others[..] else { panic!("{others:?}") };
    assert_eq!(u16::from(frame.code), 1003);
    assert_eq!(relay.stats().refused(Refusal::WebSocket).load(Ordering::Relaxed), 1);
}
