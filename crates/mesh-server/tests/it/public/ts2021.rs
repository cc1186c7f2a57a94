//! From a request to a channel, for those who do it wrong.

use std::time::Duration;

use bytes::BytesMut;
use mesh_noise::{INITIATION_BYTES, Initiator};
use tokio::io::AsyncWriteExt as _;

use crate::channel::{
    self, HEADERS, HELLO, ask_for_upgrade, frame, frames_until_closed, handshake, initiator,
    post_headers, send, upgrade,
};
use crate::http;
use crate::server::{Setup, TestServer, machine_private, register_request};

/// Asks for an upgrade with an initiation that must be refused as no handshake.
async fn check_refused(server: &TestServer, initiation: &[u8], why: &str) {
    let handshake = data_encoding::BASE64.encode(initiation);
    let (_, answer) = ask_for_upgrade(server, &handshake, "").await;
    assert_eq!(answer.status, 400, "{why}: {answer:?}");
    assert!(answer.body.contains(why), "{why}: {}", answer.body);
}

#[tokio::test]
async fn a_request_for_something_else_is_refused() {
    let server = TestServer::start().await;
    let initiation = data_encoding::BASE64.encode(initiator(&server, 1).initiation());
    let handshake = format!("X-Tailscale-Handshake: {initiation}\r\n");
    for headers in [
        String::new(),
        handshake.clone(),
        format!("Upgrade: websocket\r\nConnection: upgrade\r\n{handshake}"),
        format!("Upgrade: \r\nConnection: upgrade\r\n{handshake}"),
        "Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n".to_owned(),
    ] {
        for method in ["POST", "GET"] {
            let request = format!("{method} /ts2021 HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
            assert_eq!(server.ask(&request).await.status, 400, "{request}");
        }
    }
    assert_eq!(server.channels(), 0);
}

#[tokio::test]
async fn a_handshake_that_is_no_base64_is_refused() {
    let server = TestServer::start().await;
    let long = "A".repeat(1 << 14);
    for handshake in ["", "=", "AAA", "%%%%", "AQID-_==", &long] {
        let (_, answer) = ask_for_upgrade(&server, handshake, "").await;
        assert_eq!(answer.status, 400, "{handshake}");
    }
}

#[tokio::test]
async fn an_initiation_of_another_length_or_type_is_refused() {
    let server = TestServer::start().await;
    let whole = *initiator(&server, 1).initiation();
    let mut longer = whole.to_vec();
    longer.push(0);
    for wrong in [&whole[..0], &whole[..5], &whole[..INITIATION_BYTES - 1], &longer] {
        check_refused(&server, wrong, "bytes instead of").await;
    }
    for message_type in [0, 2, 3, 4, 255] {
        let mut wrong = whole;
        wrong[2] = message_type;
        check_refused(&server, &wrong, "instead of 1").await;
    }
    let mut wrong = whole;
    wrong[3] = 255;
    check_refused(&server, &wrong, "bytes instead of").await;
}

#[tokio::test]
async fn keys_of_low_order_are_refused() {
    let server = TestServer::start().await;
    // Orders 4, 1 and 8: RFC 7748, section 6.1, and https://cr.yp.to/ecdh.html#validate.
    let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let order_8 = data_encoding::HEXLOWER.decode(order_8.as_bytes()).unwrap();
    let mut order_1 = [0; 32];
    order_1[0] = 1;
    for key in [&[0; 32][..], &order_1, &order_8] {
        let mut initiation = *initiator(&server, 1).initiation();
        initiation[5..37].copy_from_slice(key);
        check_refused(&server, &initiation, "low order").await;
    }
}

#[tokio::test]
async fn an_initiation_that_was_changed_on_its_way_is_refused() {
    let server = TestServer::start().await;
    let whole = *initiator(&server, 1).initiation();
    // Of every part one byte: version, ephemeral key, sealed static key and its tag, tag.
    for place in [0, 1, 5, 36, 37, 68, 84, 85, 100] {
        let mut wrong = whole;
        wrong[place] ^= 1;
        check_refused(&server, &wrong, "does not authenticate").await;
    }
    let other_server = machine_private(99).public();
    let wrong = Initiator::new(&machine_private(1), &other_server, 145).unwrap();
    check_refused(&server, wrong.initiation(), "does not authenticate").await;
}

#[tokio::test]
async fn garbage_after_the_upgrade_ends_the_channel() {
    let server = TestServer::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[4, 255, 255], &[4, 0, 1], &[255]] {
        let (mut stream, _) = handshake(&server, 1).await;
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        // What still comes is the early payload and HTTP/2's settings.
        assert!(http::rest(&mut stream).await.len() < 1024);
    }
    server.until(|server| server.channels() == 0).await;
}

#[tokio::test]
async fn a_corrupted_record_ends_the_channel() {
    let server = TestServer::start().await;
    let client = server.join(2).await;
    let epoch = server.store.snapshot().epoch;
    let body = serde_json::to_vec(&register_request(1, "")).unwrap();
    let request = [
        HELLO,
        &frame(HEADERS, channel::END_HEADERS, 1, &post_headers("/machine/register", &[])),
        &frame(channel::DATA, channel::END_STREAM, 1, &body),
    ];
    for place in [0, 1, 3, 40, 200] {
        let (mut stream, mut transport) = handshake(&server, 1).await;
        let mut records = BytesMut::new();
        transport.sealer.seal_into([&*request.concat()], &mut records).unwrap();
        records[place] ^= 0x80;
        stream.write_all(&records).await.unwrap();
        http::rest(&mut stream).await;
    }
    server.until(|server| server.channels() == 1).await;
    assert_eq!(server.store.snapshot().epoch, epoch);
    assert_eq!(
        client.request(::http::Method::GET, "/machine/whoami", "").await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn a_replayed_initiation_opens_nothing() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let body = serde_json::to_vec(&register_request(1, &key)).unwrap();
    let request = [
        HELLO,
        &frame(HEADERS, channel::END_HEADERS, 1, &post_headers("/machine/register", &[])),
        &frame(channel::DATA, channel::END_STREAM, 1, &body),
    ];
    // Somebody listens to a client that registers, and sees all that it sends.
    let initiator = initiator(&server, 1);
    let initiation = *initiator.initiation();
    let (mut stream, response) = upgrade(&server, &initiation, "").await;
    let mut transport = initiator.finish(&response).unwrap();
    let mut records = BytesMut::new();
    transport.sealer.seal_into([&*request.concat()], &mut records).unwrap();
    stream.write_all(&records).await.unwrap();
    server.until(|server| server.node(1).is_some()).await;
    drop(stream);
    let node = server.node(1).unwrap().id;
    server.submit(mesh_state::Command::DeleteNode { node }).await;
    server.until(|server| server.channels() == 0).await;

    let epoch = server.store.snapshot().epoch;
    let (mut replayed, other_response) = upgrade(&server, &initiation, "").await;
    assert_ne!(other_response, response, "each handshake has keys of its own");
    replayed.write_all(&records).await.unwrap();
    http::rest(&mut replayed).await;
    server.until(|server| server.channels() == 0).await;
    assert_eq!(server.store.snapshot().epoch, epoch);
    assert!(server.node(1).is_none());
}

#[tokio::test]
async fn a_channel_without_a_request_is_closed() {
    let handshake_timeout = Duration::from_millis(300);
    let server = TestServer::start_as(Setup { handshake_timeout, ..Setup::default() }).await;
    let client = server.client(1).await;
    let asked = client.request(::http::Method::GET, "/machine/whoami", "").await.unwrap();
    assert_eq!(asked.status(), 200);
    for hello in [&HELLO[..0], &HELLO[..10], HELLO] {
        let mut channel = channel::open(&server, 2, "").await;
        send(&mut channel, hello).await;
        frames_until_closed(&mut channel).await;
    }
    assert!(!client.is_closed(), "whoever has asked once may be silent");
    server.until(|server| server.channels() == 1).await;
}
