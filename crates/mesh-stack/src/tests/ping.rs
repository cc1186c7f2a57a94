//! Echo requests.

use super::*;

#[tokio::test(start_paused = true)]
async fn ping_measures_the_way_there_and_back() {
    let weather = Weather { latency: Duration::from_millis(20), ..Weather::default() };
    let (a, _b) = pair_in(weather);
    for ip in [B4, B6] {
        let latency = within(1, a.ping(at(ip, 0).ip())).await.expect("answered");
        assert!(latency >= Duration::from_millis(40) && latency < Duration::from_millis(45));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_for_routed_addresses() {
    let (a, _b) = pair();
    let answer = timeout(Duration::from_secs(5), a.ping(at("192.0.2.7", 0).ip())).await;
    assert!(answer.is_err());
}

#[tokio::test(start_paused = true)]
async fn pings_are_limited_and_given_up_when_dropped() {
    let (a, mut outgoing) = stack(&[A4]);
    let ping = || {
        let a = a.clone();
        tokio::spawn(async move { a.ping(at(B4, 0).ip()).await })
    };
    let pings: Vec<_> = (0..256).map(|_| ping()).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut batch = PacketBatch::new();
    outgoing.next_batch(&mut batch).await;
    assert_eq!(batch.len(), 256);
    let kind = |answer: io::Result<Duration>| answer.map_err(|error| error.kind());
    let refused = within(1, a.ping(at(B4, 0).ip())).await;
    assert_eq!(kind(refused), Err(io::ErrorKind::QuotaExceeded));
    for ping in &pings[1..] {
        ping.abort();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let impossible = within(1, a.ping(at("224.0.0.1", 0).ip())).await;
    assert_eq!(kind(impossible), Err(io::ErrorKind::InvalidInput));
    let impossible = within(1, a.ping(at(B6, 0).ip())).await;
    assert_eq!(kind(impossible), Err(io::ErrorKind::AddrNotAvailable));
    let again = ping();
    outgoing.next_batch(&mut batch).await;
    assert_eq!(batch.len(), 1);
    drop(outgoing);
    assert_eq!(kind(again.await.expect("it ran")), Err(io::ErrorKind::NetworkDown));
}

/// An answer that bears another token than was sent is from somebody who guesses.
#[tokio::test(start_paused = true)]
async fn guessed_answer_counts_for_nothing() {
    let (a, mut outgoing) = stack(&[A4]);
    let mut batch = PacketBatch::new();
    let answer = async {
        outgoing.next_batch(&mut batch).await;
        let mut packet = batch.packets().next().expect("a request").to_vec();
        packet[12..20].rotate_left(4);
        // Type and checksum of an answer to the same content.
        packet[20] = 0;
        let checksum = u16::from_be_bytes([packet[22], packet[23]]);
        let (sum, has_carried) = checksum.overflowing_add(0x0800);
        packet[22..24].copy_from_slice(&(sum + u16::from(has_carried)).to_be_bytes());
        let mut guessed = packet.clone();
        // Two words change places, so that the checksum stays right.
        guessed[28..36].rotate_left(2);
        a.receive([&guessed]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        a.receive([&packet]);
    };
    let (latency, ()) = within(1, async { tokio::join!(a.ping(at(B4, 0).ip()), answer) }).await;
    assert!(latency.expect("answered") >= Duration::from_millis(500));
}
