use std::time::Duration;

use http::{Response, StatusCode};
use mesh_client::{MapPart, MapStream, MapStreamError, RequestError};
use mesh_wire::{KEEP_ALIVE_JSON, MapRequest};
use tokio::time::timeout;

use crate::fake_server::{FakeServer, Manners, Script, ok, refusal};

fn framed(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).unwrap().to_le_bytes()[..], payload].concat()
}

/// A server that streams `bytes`, `size` at a time.
async fn streaming(bytes: Vec<u8>, size: usize, open: bool) -> FakeServer {
    FakeServer::start(Manners::Good, move |asked| {
        assert_eq!(asked.path, "/machine/map");
        Response::new(Script::pieces(&bytes, size, open))
    })
    .await
}

async fn open(server: &FakeServer, compress: &str) -> MapStream {
    let request =
        MapRequest { stream: true, compress: compress.to_owned(), ..MapRequest::default() };
    server.client().await.map_stream(&request).await.unwrap()
}

/// A message that names a tailnet.
fn domain(name: &str) -> Vec<u8> {
    format!(r#"{{"Domain":"{name}"}}"#).into_bytes()
}

async fn check_domains(stream: &mut MapStream, expected: &[&str]) {
    for name in expected {
        assert_eq!(stream.next().await.unwrap().unwrap().domain, *name);
    }
}

#[tokio::test]
async fn messages_arrive_plain_and_compressed() {
    for (compress, size) in [("", 7), ("", 100_000), ("zstd", 3), ("zstd", 100_000)] {
        // HTTP/2 bears no more than some thousand tiny pieces that nobody has read yet.
        let large = [domain("large"), vec![b' '; 300 * size.min(1_000)]].concat();
        let mut bytes = Vec::new();
        for json in [domain("one"), large.clone(), domain("two")] {
            let payload =
                if compress.is_empty() { json } else { zstd::encode_all(&json[..], 1).unwrap() };
            bytes.extend_from_slice(&framed(&payload));
        }
        let server = streaming(bytes, size, false).await;
        let mut stream = open(&server, compress).await;
        check_domains(&mut stream, &["one", "large", "two"]).await;
        assert!(stream.next().await.unwrap().is_none(), "the end");
    }
}

#[tokio::test]
async fn keep_alives_are_messages_too() {
    let server = streaming(framed(KEEP_ALIVE_JSON.as_bytes()), 99, true).await;
    let mut stream = open(&server, "").await;
    assert!(stream.next().await.unwrap().unwrap().keep_alive);
}

#[tokio::test]
async fn raw_messages_are_not_read() {
    let server = streaming(framed(b"no json"), 99, true).await;
    assert_eq!(open(&server, "").await.next_json().await.unwrap().unwrap(), "no json");
    let error = open(&server, "").await.next().await.unwrap_err();
    assert!(matches!(error, MapStreamError::Json(_)), "{error:?}");
}

#[tokio::test]
async fn end_inside_a_message_is_an_error() {
    let bytes = [framed(&domain("one")), framed(&domain("two"))].concat();
    let server = streaming(bytes[..bytes.len() - 1].to_vec(), 5, false).await;
    let mut stream = open(&server, "").await;
    check_domains(&mut stream, &["one"]).await;
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, MapStreamError::Truncated), "{error:?}");
}

#[tokio::test]
async fn waiting_can_be_cancelled_without_loss() {
    let bytes = [framed(&domain("one")), framed(&domain("two"))].concat();
    let server = streaming(bytes, 1, true).await;
    let mut stream = open(&server, "").await;
    let mut names = Vec::new();
    while names.len() < 2 {
        if let Ok(message) = timeout(Duration::from_micros(50), stream.next()).await {
            names.push(message.unwrap().unwrap().domain);
        }
    }
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn refused_stream_is_an_error() {
    let server =
        FakeServer::start(Manners::Good, |_| refusal(StatusCode::UNAUTHORIZED, "unknown node key"))
            .await;
    let error = server.client().await.map_stream(&MapRequest::default()).await.unwrap_err();
    let RequestError::Status { status, message, .. } = error else { panic!("{error:?}") };
    assert_eq!((status, &*message), (StatusCode::UNAUTHORIZED, "unknown node key"));
}

#[tokio::test]
async fn who_stops_reading_keeps_the_channel() {
    let bytes = [framed(&domain("one")), framed(&domain("two"))].concat();
    let server = streaming(bytes, 99, true).await;
    let client = server.client().await;
    let request = MapRequest { stream: true, ..MapRequest::default() };
    client.stop_reading();
    let answer = timeout(Duration::from_millis(50), client.map_stream(&request)).await;
    assert!(answer.is_err(), "an answer was read");
    server.wait_for_channels(1).await;
    drop(client);
    server.wait_for_channels(0).await;
}

#[tokio::test]
async fn channel_lives_as_long_as_the_stream() {
    let server = streaming(framed(&domain("one")), 99, true).await;
    let mut stream = open(&server, "").await;
    check_domains(&mut stream, &["one"]).await;
    server.wait_for_channels(1).await;
    assert!(timeout(Duration::from_millis(20), stream.next()).await.is_err(), "still open");
    server.wait_for_channels(1).await;
    drop(stream);
    server.wait_for_channels(0).await;
}

#[tokio::test]
async fn dropped_client_closes_the_channel() {
    let server = FakeServer::start(Manners::Good, |_| ok("")).await;
    let client = server.client().await;
    server.wait_for_channels(1).await;
    drop(client);
    server.wait_for_channels(0).await;
}

/// A first map of 5,000 peers, whose names do not compress to nothing.
fn first_map() -> Vec<u8> {
    let peer = |id: u64| {
        let name = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!(r#"{{"ID":{id},"Name":"{name:016x}{:016x}{name:x}."}}"#, name.reverse_bits())
    };
    let peers: Vec<_> = (1..=5_000).map(peer).collect();
    format!(r#"{{"Peers":[{}],"Domain":"long"}}"#, peers.join(",")).into_bytes()
}

#[tokio::test]
async fn only_long_messages_come_in_parts() {
    for compression in ["", "zstd"] {
        let encode = |json: Vec<u8>| match compression {
            "" => json,
            _ => zstd::encode_all(&json[..], 1).unwrap(),
        };
        // The third is short on the wire and long when it is decompressed.
        let spaces = [domain("two"), vec![b' '; 2 << 20]].concat();
        let messages = [domain("one"), first_map(), spaces, domain("three")];
        let bytes: Vec<u8> = messages.into_iter().flat_map(|json| framed(&encode(json))).collect();
        let server = streaming(bytes, 9_999, false).await;
        let mut parts = open(&server, compression).await.in_parts();
        let (mut domains, mut listed) = (Vec::new(), 0);
        while let Some(part) = parts.next().await.unwrap() {
            match part {
                MapPart::Peers(peers) => {
                    assert_eq!(domains, ["one"], "peers come before the rest of their message");
                    listed += peers.len();
                }
                MapPart::Message(message) => domains.push(message.domain),
            }
        }
        assert_eq!(
            (domains, listed),
            (vec!["one".into(), "long".into(), "two".into(), "three".into()], 5_000)
        );
    }
}

#[tokio::test]
async fn end_inside_a_long_message_is_an_error() {
    let bytes = framed(&first_map());
    let server = streaming(bytes[..bytes.len() - 1].to_vec(), 5_000, false).await;
    let mut parts = open(&server, "").await.in_parts();
    let error = loop {
        match parts.next().await {
            Ok(Some(MapPart::Peers(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MapStreamError::Truncated), "{error:?}");
}
