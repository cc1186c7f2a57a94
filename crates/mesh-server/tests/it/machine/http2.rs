//! HTTP/2 inside a channel, from those who abuse it.

use ::http::{Method, Request, StatusCode};
use mesh_client::ControlClient;

use crate::channel::{
    self, Body, CONTINUATION, Came, Channel, DATA, END_HEADERS, END_STREAM, Forwarded, GOAWAY,
    HEADERS, HELLO, RST_STREAM, SETTINGS, frame, frames_until_closed, next_frame, post_headers,
    send,
};
use crate::http;
use crate::server::{TestServer, within};

/// A channel that HTTP/2 has begun in.
async fn greeted(server: &TestServer) -> Channel {
    let mut channel = channel::open(server, 1, "").await;
    send(&mut channel, HELLO).await;
    channel
}

/// The headers of a request without more than a path, whose body is to follow.
fn open_request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post_headers(path, &[]))
}

/// A client that has nothing to do with it is served.
async fn check_served(client: &ControlClient) {
    let answer = within(client.request(Method::GET, "/machine/whoami", "")).await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Whether the server has said why it hangs up.
fn says_goodbye(frames: &[Came]) -> bool {
    frames.iter().any(|(kind, _)| *kind == GOAWAY)
}

#[tokio::test]
async fn what_is_no_http_2_ends_the_channel() {
    let server = TestServer::start().await;
    let client = server.join(2).await;
    for garbage in
        [&b"GET /machine/map HTTP/1.1\r\nHost: test\r\n\r\n"[..], &[0; 4000], &[0xff; 64]]
    {
        let mut channel = channel::open(&server, 1, "").await;
        send(&mut channel, garbage).await;
        http::rest(&mut channel).await;
    }
    check_served(&client).await;
    server.until(|server| server.channels() == 1).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_channel() {
    let server = TestServer::start().await;
    let client = server.join(2).await;
    for wrong in [
        // Longer than was agreed on, and its header alone.
        [&[0xff, 0xff, 0xff, DATA, 0], &1_u32.to_be_bytes()[..]].concat(),
        // Data on no stream, on one that nobody opened, headers on an even one.
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0, 7, b"x"),
        frame(HEADERS, END_HEADERS, 2, &post_headers("/machine/map", &[])),
        // Settings of another length, and an answer to settings with content.
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 1, 0, &[0; 6]),
        // HPACK: an index that is none, and an integer without end.
        frame(HEADERS, END_HEADERS, 1, &[0xfe]),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        // A continuation of nothing, and headers that something else interrupts.
        frame(CONTINUATION, END_HEADERS, 1, b""),
        [frame(HEADERS, 0, 1, &post_headers("/machine/map", &[])), frame(DATA, 0, 1, b"x")]
            .concat(),
    ] {
        let mut channel = greeted(&server).await;
        send(&mut channel, &wrong).await;
        assert!(says_goodbye(&frames_until_closed(&mut channel).await), "{wrong:?}");
    }
    check_served(&client).await;
    server.until(|server| server.channels() == 1).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let server = TestServer::start().await;
    let mut channel = greeted(&server).await;
    for number in 0..150 {
        send(&mut channel, &open_request(2 * number + 1, "/machine/map")).await;
    }
    let mut refused = 0;
    while refused < 50 {
        let (kind, stream) = next_frame(&mut channel).await;
        assert_ne!(kind, GOAWAY);
        if kind == RST_STREAM {
            assert!(stream > 200, "{stream}");
            refused += 1;
        }
    }
    // The first of them is served all the same.
    send(&mut channel, &frame(DATA, END_STREAM, 1, b"{}")).await;
    while next_frame(&mut channel).await != (HEADERS, 1) {}
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_open_end_the_channel() {
    let server = TestServer::start().await;
    // So h2 says itself, of every such client.
    server.expect_alarm("remotely-reset pending-accept streams reached limit");
    let client = server.join(2).await;
    let mut channel = greeted(&server).await;
    let cancel = 8_u32.to_be_bytes();
    let burst: Vec<u8> = (0..5000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [open_request(stream, "/machine/map"), frame(RST_STREAM, 0, stream, &cancel)].concat()
        })
        .collect();
    send(&mut channel, &burst).await;
    assert!(says_goodbye(&frames_until_closed(&mut channel).await));
    check_served(&client).await;
    server.until(|server| server.channels() == 1).await;
}

#[tokio::test]
async fn a_header_list_that_is_too_long_is_refused() {
    let server = TestServer::start().await;
    let mut client = Forwarded::over(channel::open(&server, 1, "").await).await;
    let value = "a".repeat(12_000);
    let request = Request::get("https://test/machine/whoami").header("x-one", &value);
    let request = request.header("x-two", &value).body(Body::default()).unwrap();
    let answer = within(client.send(request)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(client.post("/machine/c2n", String::new()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_header_list_without_end_ends_the_channel() {
    let server = TestServer::start().await;
    let client = server.join(2).await;
    let mut channel = greeted(&server).await;
    send(&mut channel, &frame(HEADERS, 0, 1, &post_headers("/machine/map", &[]))).await;
    let more = frame(CONTINUATION, 0, 1, &post_headers("/", &[("x-long", &"a".repeat(8000))]));
    let mut sent = 0;
    let mut bytes = bytes::BytesMut::with_capacity(1);
    while sent < 16 << 20 {
        send(&mut channel, &more).await;
        sent += more.len();
        // Whether the server still reads shows in what it says.
        bytes.clear();
        let read = tokio::io::AsyncReadExt::read_buf(&mut channel, &mut bytes);
        if let Ok(Ok(0) | Err(_)) =
            tokio::time::timeout(std::time::Duration::from_millis(1), read).await
        {
            break;
        }
    }
    assert!(sent < 16 << 20, "the server reads on");
    check_served(&client).await;
    server.until(|server| server.channels() == 1).await;
}
