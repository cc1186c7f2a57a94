use mesh_keys::ChallengePublic;
use mesh_noise::early_payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const SETTINGS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";

async fn check(stream: &[u8], expected: &[u8]) {
    for pipe_bytes in [1, 7, 4096] {
        let (mut server, client) = duplex(pipe_bytes);
        let sent = stream.to_vec();
        let sending = tokio::spawn(async move {
            server.write_all(&sent).await.expect("write");
        });
        let mut received = Vec::new();
        let mut client = WithoutEarlyPayload::new(client, Arc::default());
        client.read_to_end(&mut received).await.expect("read");
        assert_eq!(received, expected);
        sending.await.expect("sent");
    }
}

#[tokio::test]
async fn early_payload_is_left_out() {
    let payload = early_payload(&ChallengePublic::from_bytes([5; 32]));
    check(&[&payload, SETTINGS].concat(), SETTINGS).await;
    check(&payload, b"").await;
}

#[tokio::test]
async fn stream_without_early_payload_is_untouched() {
    check(SETTINGS, SETTINGS).await;
    check(b"", b"").await;
    check(b"\xff\xff\xfe", b"\xff\xff\xfe").await;
}

#[tokio::test]
async fn early_payload_over_the_limit_is_refused() {
    let mut client =
        WithoutEarlyPayload::new(&b"\xff\xff\xffTS\xff\xff\xff\xff"[..], Arc::default());
    let error = client.read_u8().await.expect_err("4 GiB");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn writing_does_not_wait_for_the_server() {
    let (server, client) = duplex(64);
    let mut client = WithoutEarlyPayload::new(client, Arc::default());
    client.write_all(b"PRI").await.expect("write");
    let mut server = server;
    let mut received = [0; 3];
    server.read_exact(&mut received).await.expect("read");
    assert_eq!(&received, b"PRI");
}
