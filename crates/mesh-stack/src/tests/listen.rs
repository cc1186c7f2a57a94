//! Listeners: who gets a connection.

use std::net::IpAddr;

use super::*;
use crate::BindError;

/// An address of a network that `b` routes.
const ROUTED: &str = "192.0.2.7";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[tokio::test(start_paused = true)]
async fn most_specific_listener_takes_the_connection() {
    let (a, b) = pair();
    let places = [
        (Network::Tcp, None),
        (Network::Tcp4, None),
        (Network::Tcp, Some(ip(B4))),
        (Network::Tcp4, Some(ip(B4))),
    ];
    let mut listeners = Vec::new();
    for (network, ip) in places {
        listeners.push(b.listen_tcp(network, ip, 80).expect("it is free"));
        let newest = listeners.last_mut().expect("one was pushed");
        let (client, server) = tokio::join!(a.connect_tcp(None, at(B4, 80)), newest.accept());
        assert_eq!(client.expect("connected").local_addr(), server.expect("accepted").1);
    }
    // The first one still has IPv6 for itself.
    let (client, server) = tokio::join!(a.connect_tcp(None, at(B6, 80)), listeners[0].accept());
    assert_eq!(client.expect("connected").local_addr(), server.expect("accepted").1);
}

#[tokio::test(start_paused = true)]
async fn same_place_is_taken_once() {
    let (_a, b) = pair();
    let check = |network, ip, expected: Result<u16, BindError>| {
        let listener = b.listen_tcp(network, ip, 80);
        assert_eq!(listener.as_ref().map(TcpListener::port).map_err(|error| *error), expected);
        listener.ok()
    };
    let first = check(Network::Tcp, None, Ok(80));
    check(Network::Tcp, None, Err(BindError::InUse));
    check(Network::Tcp, Some(ip("::")), Err(BindError::InUse));
    check(Network::Tcp, Some(ip("0.0.0.0")), Err(BindError::InUse));
    check(Network::Tcp6, Some(ip(B4)), Err(BindError::WrongFamily));
    check(Network::Tcp6, None, Ok(80));
    check(Network::Tcp, Some(ip(B4)), Ok(80));
    drop(first);
    check(Network::Tcp, None, Ok(80));
}

#[tokio::test(start_paused = true)]
async fn port_0_takes_a_free_one_of_the_range() {
    let (_a, b) = pair();
    let mut listeners: Vec<_> = (0..9998).map(|_| listen(&b, 0)).collect();
    listeners.sort_by_key(TcpListener::port);
    let ports: Vec<_> = listeners.iter().map(TcpListener::port).collect();
    assert_eq!(ports, (10_002..=19_999).collect::<Vec<_>>());
    let none = b.listen_tcp(Network::Tcp, None, 0);
    assert_eq!(none.expect_err("all are taken"), BindError::NoFreePort);
}

#[tokio::test(start_paused = true)]
async fn routed_address_needs_its_own_listener() {
    let (a, b) = pair();
    let _own = listen(&b, 80);
    let refused = a.connect_tcp(None, at(ROUTED, 80)).await.expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let mut routed = b.listen_tcp(Network::Tcp, Some(ip(ROUTED)), 80).expect("it is free");
    let (client, server) = tokio::join!(a.connect_tcp(None, at(ROUTED, 80)), routed.accept());
    let (mut client, mut server) = (client.expect("connected"), server.expect("accepted").0);
    assert_eq!(server.local_addr(), at(ROUTED, 80));
    assert_echo(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn fallback_takes_what_it_wants_and_nothing_else() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    let mut fallback = b
        .listen_fallback(|source, destination| {
            source.ip() == at(A4, 0).ip() && destination.port() != 25
        })
        .expect("there is none");
    let second = b.listen_fallback(|_, _| true).expect_err("there is one");
    assert_eq!(second, BindError::InUse);
    let (client, server) = tokio::join!(a.connect_tcp(None, at(ROUTED, 22)), fallback.accept());
    let (mut client, mut server) = (client.expect("connected"), server.expect("accepted").0);
    assert_eq!(server.local_addr(), at(ROUTED, 22));
    assert_echo(&mut client, &mut server).await;
    let (client, _) = tokio::join!(a.connect_tcp(None, at(B4, 80)), listener.accept());
    client.expect("the listener comes first");
    let check_refused = async |to| {
        let refused = a.connect_tcp(None, to).await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    };
    check_refused(at(ROUTED, 25)).await;
    check_refused(at(B6, 22)).await;
    drop(fallback);
    check_refused(at(ROUTED, 22)).await;
}

#[tokio::test(start_paused = true)]
async fn connection_that_nobody_accepts_ends_after_a_second() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    let mut client = a.connect_tcp(None, at(B4, 80)).await.expect("connected");
    let started_at = Instant::now();
    let failed = within(5, read_all(&mut client)).await.expect_err("reset");
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    let elapsed = started_at.elapsed();
    assert!(elapsed >= Duration::from_millis(990) && elapsed < Duration::from_millis(1100));
    assert!(timeout(Duration::from_secs(1), listener.accept()).await.is_err(), "it is gone");
    within(1, all_gone([&b, &b])).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_listener_resets_what_waits() {
    let (a, b) = pair();
    let listener = listen(&b, 80);
    let mut client = a.connect_tcp(None, at(B4, 80)).await.expect("connected");
    drop(listener);
    let failed = within(1, read_all(&mut client)).await.expect_err("reset");
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    let refused = a.connect_tcp(None, at(B4, 80)).await.expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn addresses_may_change() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    let refused = a.connect_tcp(None, at(ROUTED, 80)).await.expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    b.set_addresses(&[ip(ROUTED)]);
    let (client, server) = tokio::join!(a.connect_tcp(None, at(ROUTED, 80)), listener.accept());
    assert_echo(&mut client.expect("connected"), &mut server.expect("accepted").0).await;
    let refused = a.connect_tcp(None, at(B4, 80)).await.expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}
