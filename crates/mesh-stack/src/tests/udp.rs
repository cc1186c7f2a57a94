//! Datagrams.

use super::*;
use crate::{BindError, UdpListener, UdpSocket, UdpStream};

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

/// A socket of `a` that has sent `payload` to `to`.
async fn sender(a: &Stack, to: SocketAddr, payload: &[u8]) -> UdpSocket {
    let own = if to.is_ipv4() { A4 } else { A6 };
    let socket = a.bind_udp(at(own, 0)).expect("a free port");
    socket.send_to(payload, to).await.expect("sent");
    socket
}

async fn assert_received(stream: &UdpStream, expected: &[u8]) {
    let mut buffer = [0; 1280];
    let length = within(1, stream.recv(&mut buffer)).await.expect("received");
    assert_eq!(&buffer[..length], expected);
}

#[tokio::test(start_paused = true)]
async fn each_source_is_a_stream_of_its_own() {
    let (a, b) = pair();
    let mut listener = b.listen_udp(Network::Udp, None, 53).expect("it is free");
    let mut streams = Vec::new();
    for (number, ip) in [B4, B6, B4].into_iter().enumerate() {
        let client = sender(&a, at(ip, 53), &[number.to_le_bytes()[0]]).await;
        let (stream, from) = within(1, listener.accept()).await.expect("accepted");
        assert_eq!((from, stream.local_addr()), (client.local_addr(), at(ip, 53)));
        assert_eq!(stream.peer_addr(), from);
        streams.push((client, stream));
    }
    for (number, (client, stream)) in streams.iter().enumerate() {
        assert_received(stream, &[number.to_le_bytes()[0]]).await;
        client.send_to(b"more", stream.local_addr()).await.expect("sent");
        assert_received(stream, b"more").await;
        stream.send(&[7; 1200]).await.expect("sent");
        let mut buffer = [0; 1280];
        let received = within(1, client.recv_from(&mut buffer)).await.expect("received");
        assert_eq!(received, (1200, stream.local_addr()));
        let too_long = stream.send(&[7; 1253]).await.expect_err("too long");
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
    }
}

#[tokio::test(start_paused = true)]
async fn most_specific_listener_takes_the_datagram() {
    let (a, b) = pair();
    let ip = |text| Some(at(text, 0).ip());
    let places = [
        (Network::Udp, None),
        (Network::Udp4, None),
        (Network::Udp, ip(B4)),
        (Network::Udp4, ip(B4)),
    ];
    let mut listeners = Vec::new();
    for (network, ip) in places {
        listeners.push(b.listen_udp(network, ip, 53).expect("it is free"));
        let client = sender(&a, at(B4, 53), b"hello").await;
        let newest = listeners.last_mut().expect("one was pushed");
        let (_, from) = within(1, newest.accept()).await.expect("accepted");
        assert_eq!(from, client.local_addr());
    }
    let taken = b.listen_udp(Network::Udp, ip("0.0.0.0"), 53).expect_err("it is taken");
    assert_eq!(taken, BindError::InUse);
    let tcp = b.listen_udp(Network::Tcp, None, 54).expect_err("another protocol");
    assert_eq!(tcp, BindError::WrongProtocol);
    let any = b.listen_udp(Network::Udp6, None, 0).expect("a free port");
    assert!((10_002..=19_999).contains(&any.port()));
    // A socket comes before all of them.
    let socket = b.bind_udp(at(B4, 53)).expect("it is free");
    let client = sender(&a, at(B4, 53), b"hello").await;
    let received = within(1, socket.recv_from(&mut [0; 9])).await.expect("received");
    assert_eq!(received, (5, client.local_addr()));
}

#[tokio::test(start_paused = true)]
async fn listener_for_own_addresses_takes_nothing_for_routed_ones() {
    let (a, b) = pair();
    let mut own = b.listen_udp(Network::Udp, None, 53).expect("it is free");
    sender(&a, at("192.0.2.7", 53), b"hello").await;
    assert!(timeout(Duration::from_secs(1), own.accept()).await.is_err());
    let routed = Some(at("192.0.2.7", 0).ip());
    let mut routed = b.listen_udp(Network::Udp, routed, 53).expect("it is free");
    sender(&a, at("192.0.2.7", 53), b"hello").await;
    within(1, routed.accept()).await.expect("accepted");
}

#[tokio::test(start_paused = true)]
async fn flow_ends_when_nothing_passes() {
    let (a, b) = pair();
    let mut listener = b.listen_udp(Network::Udp, None, 53).expect("it is free");
    let client = sender(&a, at(B4, 53), b"first").await;
    let (stream, _) = within(1, listener.accept()).await.expect("accepted");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(119)).await;
        stream.send(b"still here").await.expect("sent");
        tokio::time::sleep(Duration::from_secs(119)).await;
        client.send_to(b"so am I", at(B4, 53)).await.expect("sent");
    }
    assert_received(&stream, b"first").await;
    for _ in 0..3 {
        assert_received(&stream, b"so am I").await;
    }
    let ended = within(121, stream.recv(&mut [0; 9])).await.expect_err("it ends");
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    let ended = stream.send(b"hello?").await.expect_err("it has ended");
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    client.send_to(b"again", at(B4, 53)).await.expect("sent");
    let (second, _) = within(1, listener.accept()).await.expect("accepted");
    drop(stream);
    assert_received(&second, b"again").await;
    drop(listener);
    client.send_to(b"goes on", at(B4, 53)).await.expect("sent");
    assert_received(&second, b"goes on").await;
}

#[tokio::test(start_paused = true)]
async fn flow_that_nobody_accepts_is_forgotten_and_few_may_wait() {
    let (a, b) = pair();
    let mut listener = b.listen_udp(Network::Udp, None, 53).expect("it is free");
    let count = async |listener: &mut UdpListener| {
        let mut streams = Vec::new();
        while let Ok(accepted) = timeout(Duration::from_millis(10), listener.accept()).await {
            streams.push(accepted.expect("accepted"));
        }
        streams.len()
    };
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(sender(&a, at(B4, 53), b"hello").await);
    }
    assert_eq!(count(&mut listener).await, 128);
    sender(&a, at(B4, 53), b"hello").await;
    tokio::time::sleep(Duration::from_millis(1010)).await;
    assert_eq!(count(&mut listener).await, 0);
}
