//! Relays that follow a control server's list.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mesh_derp_verify::{ApiKeySource, Asks, KEEP_ALIVE_PERIOD, Line, VerifyStats};
use mesh_keys::NodePublic;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::server::Server;
use crate::world::{World, key};

/// How soon a node that was removed is off the relay.
const CUT_MAX: Duration = Duration::from_secs(1);

fn world(server: &Server, fail_open: bool) -> World {
    // A slash more or less does not matter.
    let url = format!("{}/", server.url());
    let api_key = ApiKeySource::new(|| Ok("tskey-api-1\n".to_owned()));
    World::new(Asks::Control { url, api_key }, fail_open)
}

fn keys(numbers: &[u8]) -> Vec<NodePublic> {
    numbers.iter().copied().map(key).collect()
}

fn list(numbers: &[u8]) -> String {
    let keys = keys(numbers);
    let lines = Line::list(&keys);
    lines.map(|line| String::from_utf8(line.encode().to_vec()).unwrap()).collect()
}

async fn remove(stream: &mut TcpStream, numbers: &[u8]) {
    for line in Line::change(&[], &keys(numbers)) {
        stream.write_all(&line.encode()).await.unwrap();
    }
}

/// A relay that follows a list of these, and the stream that it is told over.
async fn following(numbers: &[u8]) -> (Server, World, TcpStream) {
    let server = Server::start().await;
    let world = world(&server, false);
    let stream = server.next().await.answer(200, &list(numbers)).await;
    world.until(VerifyStats::is_following).await;
    (server, world, stream)
}

#[tokio::test]
async fn nobody_is_served_before_the_first_list_has_come() {
    let server = Server::start().await;
    let world = world(&server, false);
    assert!(world.join(1).await.is_none());
    let request = server.next().await;
    assert!(request.head.starts_with("get /api/v1/derp/nodekey http/1.1\r\n"), "{}", request.head);
    assert!(request.head.contains("authorization: bearer tskey-api-1\r\n"));
    let _stream = request.answer(200, &list(&[1, 2])).await;
    world.until(VerifyStats::is_following).await;
    assert!(world.join(1).await.is_some());
    assert!(world.join(3).await.is_none());
    assert_eq!(world.stats.nodes.load(Ordering::Relaxed), 2);
    assert_eq!(world.relay.stats().logins_refused.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_is_removed_is_cut_within_a_second() {
    let (_server, world, mut stream) = following(&[1, 2]).await;
    let one = world.join(1).await.unwrap();
    let other_one = world.join(1).await.unwrap();
    let _two = world.join(2).await.unwrap();
    let since = Instant::now();
    remove(&mut stream, &[1]).await;
    one.cut().await;
    other_one.cut().await;
    assert!(since.elapsed() < CUT_MAX);
    assert_eq!(world.stats.cuts.load(Ordering::Relaxed), 2);
    assert!(world.join(1).await.is_none());
    assert!(world.relay.is_connected(&key(2)));
}

#[tokio::test]
async fn the_last_list_holds_while_the_server_is_away_and_the_next_one_cuts_who_is_gone() {
    let (server, world, stream) = following(&[1, 2]).await;
    let one = world.join(1).await.unwrap();
    let _two = world.join(2).await.unwrap();
    drop(stream);
    world.until(|stats| !stats.is_following()).await;
    assert!(world.stats.has_list());
    let request = server.next().await;
    assert!(world.join(1).await.is_some() && world.join(3).await.is_none());
    // A list that breaks off says nothing.
    drop(request.answer(200, &list(&[3]).replace("{\"complete\":true}\n", "")).await);
    let request = server.next().await;
    assert!(world.relay.is_connected(&key(1)) && world.join(3).await.is_none());
    let _stream = request.answer(200, &list(&[2, 3])).await;
    one.cut().await;
    world.until(VerifyStats::is_following).await;
    assert!(world.relay.is_connected(&key(2)) && world.join(3).await.is_some());
}

#[tokio::test]
async fn who_was_let_in_before_the_first_list_is_cut_unless_it_is_on_it() {
    let server = Server::start().await;
    let world = world(&server, true);
    let one = world.join(1).await.unwrap();
    let _two = world.join(2).await.unwrap();
    let _stream = server.next().await.answer(200, &list(&[2])).await;
    one.cut().await;
    assert!(world.relay.is_connected(&key(2)));
    assert!(world.join(1).await.is_none());
}

#[tokio::test]
async fn what_is_not_understood_ends_the_connection_and_changes_nothing() {
    for rubbish in ["<html>\n".to_owned(), "{\"removed\":7}\n".to_owned(), "x".repeat(70_000)] {
        let (server, world, mut stream) = following(&[1]).await;
        let _one = world.join(1).await.unwrap();
        stream.write_all(rubbish.as_bytes()).await.unwrap();
        world.until(|stats| !stats.is_following()).await;
        server.next().await;
        assert!(world.relay.is_connected(&key(1)));
        assert_eq!(world.stats.interruptions.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again() {
    let server = Server::start().await;
    let world = world(&server, false);
    tokio::time::pause();
    let mut waits = Vec::new();
    for status in [404, 307, 503, 401, 200] {
        let since = Instant::now();
        drop(server.next().await.answer(status, "").await);
        waits.push(since.elapsed());
    }
    assert!(waits[1..4].iter().all(|wait| *wait < Duration::from_secs(3)), "{waits:?}");
    assert!(
        waits[4] >= Duration::from_secs(20),
        "a wrong key is not shown all the time: {waits:?}"
    );
    assert!(!world.stats.has_list());
    assert!(world.join(1).await.is_none());
    let _stream = server.next().await.answer(200, &list(&[1])).await;
    world.until(VerifyStats::is_following).await;
}

#[tokio::test]
async fn an_api_key_is_read_at_each_attempt() {
    let server = Server::start().await;
    let number = Arc::new(AtomicU8::new(1));
    let reads = Arc::clone(&number);
    let read = move || Ok(format!("tskey-api-{}", reads.load(Ordering::Relaxed)));
    let asks = Asks::Control { url: server.url(), api_key: ApiKeySource::new(read) };
    let world = World::new(asks, false);
    tokio::time::pause();
    let request = server.next().await;
    assert!(request.head.contains("tskey-api-1\r\n"), "{}", request.head);
    number.store(2, Ordering::Relaxed);
    drop(request.answer(401, "").await);
    let request = server.next().await;
    assert!(request.head.contains("tskey-api-2\r\n"), "{}", request.head);
    let _stream = request.answer(200, &list(&[1])).await;
    world.until(VerifyStats::is_following).await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_a_new_connection() {
    let (server, world, _stream) = following(&[1]).await;
    tokio::time::pause();
    let since = Instant::now();
    let _request = server.next().await;
    let waited = since.elapsed();
    assert!((2 * KEEP_ALIVE_PERIOD..4 * KEEP_ALIVE_PERIOD).contains(&waited), "{waited:?}");
    assert!(world.join(1).await.is_some());
}

#[tokio::test]
async fn signs_of_life_are_enough_and_half_lines_are_not() {
    let (server, world, mut stream) = following(&[1]).await;
    tokio::time::pause();
    for _ in 0..20 {
        tokio::time::sleep(KEEP_ALIVE_PERIOD).await;
        stream.write_all(b"{}\n").await.unwrap();
    }
    assert!(world.stats.is_following());
    let drip = async {
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = drip => {}
        _ = server.next() => {}
    }
    assert_eq!(world.stats.interruptions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up() {
    let server = Server::start().await;
    let world = world(&server, false);
    let mut stream =
        server.next().await.answer(200, &list(&[1]).replace("complete", "so_far")).await;
    tokio::time::pause();
    let drip = async {
        loop {
            let _ = stream.write_all(b"{}\n").await;
            tokio::time::sleep(KEEP_ALIVE_PERIOD).await;
        }
    };
    let since = Instant::now();
    tokio::select! {
        () = drip => {}
        () = world.until(|stats| stats.interruptions.load(Ordering::Relaxed) > 0) => {}
    }
    assert!(since.elapsed() > Duration::from_secs(30));
    assert!(!world.stats.has_list());
}
