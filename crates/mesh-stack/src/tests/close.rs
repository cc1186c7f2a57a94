//! How connections end.

use super::*;
use crate::BindError;

/// Reads until it fails; says how.
async fn read_error(stream: &mut TcpStream) -> io::ErrorKind {
    within(20_000, read_all(stream)).await.expect_err("a failure").kind()
}

#[tokio::test(start_paused = true)]
async fn each_direction_closes_for_itself() {
    let (a, b) = pair();
    for client_is_first in [true, false] {
        let (client, server) = connect(&a, &b, B6).await;
        let (mut first, mut second) =
            if client_is_first { (client, server) } else { (server, client) };
        first.write_all(b"last words").await.expect("written");
        first.shutdown().await.expect("shut down");
        assert_eq!(within(5, read_all(&mut second)).await.expect("all read"), b"last words");
        let refused = first.write(b"more").await.expect_err("it is shut down");
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        let answer = pattern(1 << 20, 5);
        let ((), received) = within(20, async {
            tokio::join!(
                async {
                    second.write_all(&answer).await.expect("written");
                    second.shutdown().await.expect("shut down");
                },
                read_all(&mut first)
            )
        })
        .await;
        assert!(received.expect("all read") == answer);
    }
    within(30, all_gone([&a, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_still_delivers() {
    let weather = Weather { latency: Duration::from_millis(30), lost_one_in: 20, late_one_in: 0 };
    let (a, b) = pair_in(weather);
    let (mut client, mut server) = within(20, connect(&a, &b, B4)).await;
    let bytes = pattern(50_000, 6);
    client.write_all(&bytes).await.expect("written");
    drop(client);
    assert!(within(60, read_all(&mut server)).await.expect("all read") == bytes);
    drop(server);
    within(100, all_gone([&a, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn finished_stream_may_be_read_much_later() {
    let (a, b) = pair();
    let (mut client, mut server) = connect(&a, &b, B4).await;
    client.shutdown().await.expect("shut down");
    assert_eq!(read_all(&mut server).await.expect("all read"), b"");
    let bytes = pattern(30_000, 7);
    server.write_all(&bytes).await.expect("written");
    drop(server);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(within(5, read_all(&mut client)).await.expect("all read") == bytes);
    assert_eq!(within(5, read_all(&mut client)).await.expect("the end stays"), b"");
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_is_connection_refused() {
    let (a, _b) = pair();
    for ip in [B4, B6, "192.0.2.7"] {
        let refused = within(5, a.connect_tcp(None, at(ip, 9))).await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test(start_paused = true)]
async fn impossible_destinations_fail_at_once() {
    let (a, _outgoing) = stack(&[A4]);
    let check = async |source: Option<&str>, to: SocketAddr, expected| {
        let source = source.map(|source| source.parse().expect("an address"));
        let failed = within(1, a.connect_tcp(source, to)).await.expect_err("impossible");
        assert_eq!(failed.kind(), expected, "{to}");
    };
    check(None, at(B6, 80), io::ErrorKind::AddrNotAvailable).await;
    check(Some(A6), at(B4, 80), io::ErrorKind::AddrNotAvailable).await;
    check(None, at(B4, 0), io::ErrorKind::InvalidInput).await;
    check(None, at("0.0.0.0", 80), io::ErrorKind::InvalidInput).await;
    check(None, at("224.0.0.1", 80), io::ErrorKind::InvalidInput).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_way_out_everything_fails() {
    let (a, a_outgoing) = stack(&[A4]);
    let (b, b_outgoing) = stack(&[B4]);
    let there = tokio::spawn(carry(a_outgoing, b.clone(), Weather::default(), Dice(1)));
    tokio::spawn(carry(b_outgoing, a.clone(), Weather::default(), Dice(2)));
    let (mut client, _server) = connect(&a, &b, B4).await;
    let mut listener = listen(&a, 80);
    there.abort();
    assert!(there.await.is_err(), "it was aborted");
    assert_eq!(read_error(&mut client).await, io::ErrorKind::NetworkDown);
    let failed = client.write(b"hello?").await.expect_err("closed");
    assert_eq!(failed.kind(), io::ErrorKind::NetworkDown);
    let failed = a.connect_tcp(None, at(B4, 7)).await.expect_err("closed");
    assert_eq!(failed.kind(), io::ErrorKind::NetworkDown);
    let failed = listener.accept().await.expect_err("closed");
    assert_eq!(failed.kind(), io::ErrorKind::NetworkDown);
    assert_eq!(a.listen_tcp(Network::Tcp, None, 81).expect_err("closed"), BindError::Closed);
    drop(client);
    assert_eq!(a.connection_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn peer_that_throws_our_bytes_away_resets() {
    let (a, b) = pair();
    let (mut client, server) = connect(&a, &b, B4).await;
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.write_all(b"anybody there?").await.expect("taken");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let failed = client.write(b"hello?").await.expect_err("reset");
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    within(1, all_gone([&b, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn aborted_stream_resets_its_peer() {
    let (a, b) = pair();
    for _ in 0..3 {
        let (mut client, server) = connect(&a, &b, B4).await;
        client.write_all(b"never read").await.expect("taken");
        server.abort();
        let failed = within(1, read_all(&mut client)).await.expect_err("reset");
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    }
    within(1, all_gone([&b, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn silent_peer_times_out() {
    let (a, a_outgoing) = stack(&[A4]);
    let (b, b_outgoing) = stack(&[B4]);
    let back = tokio::spawn(carry(b_outgoing, a.clone(), Weather::default(), Dice(2)));
    tokio::spawn(carry(a_outgoing, b.clone(), Weather::default(), Dice(1)));
    let (mut idle, _server) = connect(&a, &b, B4).await;
    let (mut busy, _other_server) = connect(&a, &b, B4).await;
    back.abort();
    busy.write_all(b"are you there?").await.expect("taken");
    let started_at = Instant::now();
    assert_eq!(read_error(&mut busy).await, io::ErrorKind::TimedOut);
    assert!(started_at.elapsed() < Duration::from_mins(16));
    assert_eq!(read_error(&mut idle).await, io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn giving_up_connecting_leaves_nothing() {
    let (a, mut outgoing) = stack(&[A4]);
    let mut batch = PacketBatch::new();
    let connecting = timeout(Duration::from_secs(5), a.connect_tcp(None, at(B4, 7)));
    let swallow = async {
        loop {
            outgoing.next_batch(&mut batch).await;
        }
    };
    tokio::select! {
        connected = connecting => assert!(connected.is_err(), "nobody answered"),
        () = swallow => {}
    }
    timeout(Duration::from_secs(1), outgoing.next_batch(&mut batch)).await.ok();
    assert_eq!(a.connection_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_short_connections_leave_nothing() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 16];
                stream.read_exact(&mut request).await.expect("a request");
                stream.write_all(&request).await.expect("answered");
            });
        }
    });
    for round in 0..3000_u32 {
        let mut client = within(5, a.connect_tcp(None, at(B4, 80))).await.expect("connected");
        client.write_all(&pattern(16, round.to_le_bytes()[0])).await.expect("asked");
        if round % 3 == 0 {
            client.shutdown().await.expect("shut down");
        }
        if round % 5 != 0 {
            let answer = within(5, read_all(&mut client)).await.expect("answered");
            assert_eq!(answer, pattern(16, round.to_le_bytes()[0]));
        }
    }
    within(120, all_gone([&a, &b])).await;
}
