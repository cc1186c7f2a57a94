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
    check(Network::Udp, None, Err(BindError::WrongProtocol));
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

async fn assert_refused(a: &Stack, to: SocketAddr) {
    let refused = a.connect_tcp(None, to).await.expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn fallback_takes_what_it_wants_and_nothing_else() {
    let (a, b) = pair();
    let mut listener = listen(&b, 80);
    let decide = |source: SocketAddr, destination: SocketAddr| {
        source.ip() == at(A4, 0).ip() && destination.port() != 25
    };
    let mut fallback = b.register_fallback(decide).expect("there is none");
    for to in [at(ROUTED, 22), at(B4, 22)] {
        let (client, server) = tokio::join!(a.connect_tcp(None, to), fallback.accept());
        let (mut client, mut server) = (client.expect("connected"), server.expect("accepted").0);
        assert_eq!(server.local_addr(), to);
        assert_echo(&mut client, &mut server).await;
    }
    let (client, _) = tokio::join!(a.connect_tcp(None, at(B4, 80)), listener.accept());
    client.expect("the listener comes first");
    assert_refused(&a, at(ROUTED, 25)).await;
    assert_refused(&a, at(B6, 22)).await;
    drop(fallback);
    assert_refused(&a, at(ROUTED, 22)).await;
}

#[tokio::test(start_paused = true)]
async fn fallbacks_are_asked_in_their_order_and_leave_one_by_one() {
    let (a, b) = pair();
    let web = b.register_fallback(|_, to| to.port() == 80).expect("there is room");
    let mut rest = b.register_fallback(|_, to| to.port() < 1000).expect("there is room");
    let mut fallbacks = [web, b.register_fallback(|_, _| true).expect("there is room")];
    for (to, taker) in [(80, 0), (5000, 1)] {
        let taker = &mut fallbacks[taker];
        let (client, server) = tokio::join!(a.connect_tcp(None, at(ROUTED, to)), taker.accept());
        assert_eq!(client.expect("connected").local_addr(), server.expect("accepted").1);
    }
    let [web, all] = fallbacks;
    drop((web, all));
    let (client, server) = tokio::join!(a.connect_tcp(None, at(ROUTED, 80)), rest.accept());
    assert_eq!(client.expect("connected").local_addr(), server.expect("accepted").1);
    assert_refused(&a, at(ROUTED, 5000)).await;
    let more: Vec<_> = (1..64).map(|_| b.register_fallback(|_, _| false)).collect();
    assert!(more.iter().all(Result::is_ok));
    let none = b.register_fallback(|_, _| false).expect_err("there is no room");
    assert_eq!(none, BindError::TooManyFallbacks);
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
