//! Datagrams.

use super::*;
use crate::BindError;

#[tokio::test(start_paused = true)]
async fn datagrams_pass_both_ways_over_both_families() {
    let (a, b) = pair();
    for (here, there) in [(A4, B4), (A6, B6)] {
        let client = a.bind_udp(at(here, 0)).expect("a free port");
        assert!((10_002..=19_999).contains(&client.local_addr().port()));
        let server = b.bind_udp(at(there, 53)).expect("it is free");
        let mut buffer = [0; 1280];
        for payload in [&b"question"[..], b"", &[7; 1200]] {
            client.send_to(payload, at(there, 53)).await.expect("sent");
            let (length, from) = within(1, server.recv_from(&mut buffer)).await.expect("received");
            assert_eq!((&buffer[..length], from), (payload, client.local_addr()));
            server.send_to(&buffer[..length], from).await.expect("sent");
            let (length, from) = within(1, client.recv_from(&mut buffer)).await.expect("received");
            assert_eq!((&buffer[..length], from), (payload, server.local_addr()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_or_bound_is_said() {
    let (a, _b) = pair();
    let socket = a.bind_udp(at(A4, 53)).expect("it is free");
    let check = async |length: usize, to: SocketAddr, expected: Option<usize>| {
        let sent = within(1, socket.send_to(&vec![0; length], to)).await;
        assert_eq!(sent.map_err(|error| error.kind()).ok(), expected);
    };
    check(1252, at(B4, 53), Some(1252)).await;
    check(1253, at(B4, 53), None).await;
    check(70_000, at(B4, 53), None).await;
    check(1, at(B6, 53), None).await;
    check(1, at(B4, 0), None).await;
    check(1, at("255.255.255.255", 53), None).await;
    assert_eq!(a.bind_udp(at(A4, 53)).expect_err("it is taken"), BindError::InUse);
    assert_eq!(a.bind_udp(at("0.0.0.0", 53)).expect_err("no host"), BindError::NotAHost);
    drop(socket);
    a.bind_udp(at(A4, 53)).expect("it is free again");
}

#[tokio::test(start_paused = true)]
async fn latest_datagrams_stay_when_nobody_reads() {
    let (a, b) = pair();
    let client = a.bind_udp(at(A4, 0)).expect("a free port");
    let server = b.bind_udp(at(B4, 53)).expect("it is free");
    for number in 0..10_000_u32 {
        let mut payload = [0; 1000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        within(1, client.send_to(&payload, at(B4, 53))).await.expect("sent");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut buffer = [0; 4];
    let mut numbers = Vec::new();
    while let Ok(received) = timeout(Duration::from_secs(1), server.recv_from(&mut buffer)).await {
        assert_eq!(received.expect("received").0, 4);
        numbers.push(u32::from_be_bytes(buffer));
    }
    assert_eq!(numbers.len(), 256 * 1024 / 1064);
    assert!(numbers.is_sorted());
    assert_eq!(numbers.last(), Some(&9_999));
}

#[tokio::test(start_paused = true)]
async fn senders_wait_while_nobody_takes_packets() {
    let (a, mut outgoing) = stack(&[A4]);
    let socket = a.bind_udp(at(A4, 0)).expect("a free port");
    for _ in 0..256 {
        within(1, socket.send_to(b"hello", at(B4, 53))).await.expect("sent");
    }
    let waits = timeout(Duration::from_secs(1), socket.send_to(b"hello", at(B4, 53))).await;
    assert!(waits.is_err());
    let mut batch = PacketBatch::new();
    let (sent, ()) =
        tokio::join!(socket.send_to(b"hello", at(B4, 53)), outgoing.next_batch(&mut batch));
    sent.expect("sent");
    assert_eq!(batch.len(), 256);
    drop(outgoing);
    let closed = socket.send_to(b"hello", at(B4, 53)).await.expect_err("closed");
    assert_eq!(closed.kind(), io::ErrorKind::NetworkDown);
}
