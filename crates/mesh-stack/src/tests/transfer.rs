//! Bytes through connections.

use super::*;

async fn check_both_ways(weather: Weather, length: usize, seconds: u64) {
    let (a, b) = pair_in(weather);
    let (client, server) = connect(&a, &b, B4).await;
    let (there, back) = (pattern(length, 1), pattern(length, 2));
    let send_and_receive = async |stream: TcpStream, bytes: &[u8]| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            writer.write_all(bytes).await.expect("written");
            writer.shutdown().await.expect("shut down");
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(write, reader.read_to_end(&mut received));
        read.expect("all read");
        received
    };
    let both =
        async { tokio::join!(send_and_receive(client, &there), send_and_receive(server, &back)) };
    let (at_client, at_server) = within(seconds, both).await;
    assert!(at_server == there, "what the client sent came differently");
    assert!(at_client == back, "what the server sent came differently");
    within(100, all_gone([&a, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_written_comes_back_over_both_families() {
    let (a, b) = pair();
    for ip in [B4, B6] {
        let (mut client, mut server) = connect(&a, &b, ip).await;
        assert_echo(&mut client, &mut server).await;
        assert_eq!(client.peer_addr(), server.local_addr());
        assert_eq!(client.local_addr(), server.peer_addr());
        assert_eq!(client.local_addr().ip(), if ip == B4 { at(A4, 0) } else { at(A6, 0) }.ip());
    }
}

#[tokio::test(start_paused = true)]
async fn megabytes_pass_both_ways_unharmed() {
    check_both_ways(Weather::default(), 8 << 20, 10).await;
}

#[tokio::test(start_paused = true)]
async fn latency_loss_and_reordering_harm_nothing() {
    let weather = Weather { latency: Duration::from_millis(20), lost_one_in: 100, late_one_in: 50 };
    check_both_ways(weather, 1 << 20, 600).await;
}

#[tokio::test(start_paused = true)]
async fn windows_grow_with_the_way() {
    let weather = Weather { latency: Duration::from_millis(50), ..Weather::default() };
    let (a, b) = pair_in(weather);
    let (mut client, mut server) = connect(&a, &b, B4).await;
    let bytes = pattern(4 << 20, 3);
    let started_at = Instant::now();
    let ((), received) = tokio::join!(
        async {
            client.write_all(&bytes).await.expect("written");
            client.shutdown().await.expect("shut down");
        },
        read_all(&mut server)
    );
    assert_eq!(received.expect("all read").len(), bytes.len());
    // With windows of 256 KiB it were 1.6 s, with ones of 64 KiB more than 6 s.
    let elapsed = started_at.elapsed();
    assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn write_waits_while_nobody_reads() {
    let (a, b) = pair();
    let (mut client, mut server) = connect(&a, &b, B4).await;
    let bytes = pattern(4 << 20, 4);
    {
        let mut write = std::pin::pin!(client.write_all(&bytes));
        assert!(timeout(Duration::from_secs(30), &mut write).await.is_err(), "nothing held it up");
        let mut received = vec![0; bytes.len()];
        let (written, read) =
            within(30, async { tokio::join!(write, server.read_exact(&mut received)) }).await;
        written.expect("written");
        read.expect("read");
        assert!(received == bytes);
    }
    assert_echo(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn connection_outlives_hours_of_silence() {
    let (a, b) = pair();
    let (mut client, mut server) = connect(&a, &b, B4).await;
    for hours in [1, 30] {
        tokio::time::sleep(Duration::from_hours(hours)).await;
        assert_echo(&mut client, &mut server).await;
    }
}

/// The window is told in steps, so its edge may move back by a little while bytes are under way.
#[tokio::test(start_paused = true)]
async fn full_window_loses_nothing() {
    let mut dice = Dice(9);
    for round in 0..20 {
        let (a, b) = pair();
        let (mut client, mut server) = connect(&a, &b, B4).await;
        let mut received = vec![0; 300_000];
        let warm_up = pattern(received.len(), 7);
        let (written, read) =
            tokio::join!(client.write_all(&warm_up), server.read_exact(&mut received));
        written.expect("written");
        read.expect("read");
        received.truncate(262_143);
        let bytes = pattern(received.len(), 8);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = rest.len().min(1 + dice.roll(30_000));
            client.write_all(&rest[..length]).await.expect("written");
            rest = &rest[length..];
            if dice.hits_one_in(3) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis([1, 50, 1000, 4000][round % 4])).await;
        let read = timeout(Duration::from_secs(30), server.read_exact(&mut received)).await;
        assert!(read.is_ok(), "it hangs in round {round}");
        assert!(received == bytes);
    }
}

/// With threads and by the real clock: a wake-up that is lost would hang here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_share_two_stacks() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await.expect("echoed");
                writer.shutdown().await.expect("shut down");
            });
        }
    });
    let clients: Vec<_> = (0..20)
        .map(|seed| {
            let a = a.clone();
            tokio::spawn(async move {
                let stream = a.connect_tcp(None, at(B6, 80)).await.expect("connected");
                let (mut reader, mut writer) = tokio::io::split(stream);
                let bytes = pattern(100_000, seed);
                let mut echo = Vec::new();
                let write = async {
                    writer.write_all(&bytes).await.expect("written");
                    writer.shutdown().await.expect("shut down");
                };
                let ((), read) = tokio::join!(write, reader.read_to_end(&mut echo));
                read.expect("all read");
                assert!(echo == bytes);
            })
        })
        .collect();
    for client in clients {
        within(60, client).await.expect("its echo was right");
    }
}
