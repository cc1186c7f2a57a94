use tokio::io::{DuplexStream, duplex};

use super::*;

/// What a client sends first when it has no password, and what it hears.
const HELLO: &[u8] = &[5, 1, 0];
const WELCOME: &[u8] = &[5, 0];

fn login() -> Login {
    Login { user: "tsnet".to_owned(), password: "secret".to_owned() }
}

/// What a client hears that sends these bytes and no more, where it is led, and how its service ends.
async fn served(
    sent: &[u8],
    login: Option<&Login>,
    dialled: Result<&[u8], Reply>,
) -> (Vec<u8>, Option<String>, io::Result<()>) {
    let (mut client, server) = duplex(1024);
    let mut to = None;
    let dial = |wanted: String| {
        to = Some(wanted);
        let peer = dialled.map(peer_that_says);
        async { peer }
    };
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    let ended = serve(server, login, dial).await;
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    (heard, to, ended)
}

/// A peer that says something and hangs up.
fn peer_that_says(text: &[u8]) -> DuplexStream {
    let (mut peer, end) = duplex(1024);
    let text = text.to_vec();
    tokio::spawn(async move {
        peer.write_all(&text).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.ok();
    });
    end
}

async fn led_to(request: &[u8]) -> Option<String> {
    served(&[HELLO, request].concat(), None, Ok(b"")).await.1
}

#[tokio::test]
async fn names_and_addresses_reach_the_dialler_as_they_are() {
    let name = [&[5, 1, 0, 3, 3][..], b"web", &[0, 80]].concat();
    assert_eq!(led_to(&name).await.as_deref(), Some("web:80"));
    let ipv4 = [5, 1, 0, 1, 100, 64, 0, 1, 1, 187];
    assert_eq!(led_to(&ipv4).await.as_deref(), Some("100.64.0.1:443"));
    let ip: Ipv6Addr = "fd7a:115c:a1e0::1".parse().unwrap();
    let ipv6 = [&[5, 1, 0, 4][..], &ip.octets(), &[0, 22]].concat();
    assert_eq!(led_to(&ipv6).await.as_deref(), Some("[fd7a:115c:a1e0::1]:22"));
}

#[tokio::test]
async fn a_connected_client_hears_its_peer() {
    let request = [HELLO, &[5, 1, 0, 1, 100, 64, 0, 1, 0, 80]].concat();
    let (heard, _, ended) = served(&request, None, Ok(b"hello")).await;
    assert_eq!(heard, [WELCOME, &answer(0), b"hello"].concat());
    ended.unwrap();
}

#[tokio::test]
async fn a_client_learns_why_it_is_not_connected() {
    let request = [HELLO, &[5, 1, 0, 1, 100, 64, 0, 1, 0, 80]].concat();
    let (heard, _, ended) = served(&request, None, Err(Reply::ConnectionRefused)).await;
    assert_eq!(heard, [WELCOME, &answer(5)].concat());
    ended.unwrap();
}

#[tokio::test]
async fn only_connect_and_known_kinds_of_addresses_are_served() {
    let bind = [HELLO, &[5, 2, 0, 1, 100, 64, 0, 1, 0, 80]].concat();
    let (heard, to, _) = served(&bind, None, Ok(b"")).await;
    assert_eq!((heard, to), ([WELCOME, &answer(7)].concat(), None));
    let (heard, to, _) = served(&[HELLO, &[5, 1, 0, 2]].concat(), None, Ok(b"")).await;
    assert_eq!((heard, to), ([WELCOME, &answer(8)].concat(), None));
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_does_not() {
    let request = [5, 1, 0, 1, 100, 64, 0, 1, 0, 80];
    let right = [&[5, 2, 0, 2, 1, 5][..], b"tsnet", &[6], b"secret", &request].concat();
    let (heard, to, _) = served(&right, Some(&login()), Ok(b"")).await;
    assert_eq!(heard, [&[5, 2, 1, 0][..], &answer(0)].concat());
    assert!(to.is_some());
    for (user, password) in [("tsnet", "secre"), ("tsne", "secret"), ("", "")] {
        let lengths = [user.len(), password.len()].map(|length| u8::try_from(length).unwrap());
        let wrong = [
            &[5, 1, 2, 1, lengths[0]][..],
            user.as_bytes(),
            &lengths[1..],
            password.as_bytes(),
            &request,
        ];
        let (heard, to, ended) = served(&wrong.concat(), Some(&login()), Ok(b"")).await;
        assert_eq!((heard, to), (vec![5, 2, 1, 1], None), "{user}:{password}");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn a_client_without_password_is_told_that_it_needs_one() {
    let (heard, to, ended) = served(HELLO, Some(&login()), Ok(b"")).await;
    assert_eq!((heard, to), (vec![5, 0xff], None));
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn every_beginning_of_a_request_ends_as_an_error() {
    let whole = [HELLO, &[5, 1, 0, 3, 3], b"web", &[0, 80]].concat();
    for length in 0..whole.len() {
        let (_, to, ended) = served(&whole[..length], None, Ok(b"")).await;
        assert_eq!((to, ended.is_err()), (None, true), "{length} bytes");
    }
}

#[tokio::test]
async fn other_protocols_are_refused() {
    for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[4, 1, 0, 80, 100, 64, 0, 1, 0], &[5, 1, 0, 4]] {
        let (_, to, ended) = served(sent, None, Ok(b"")).await;
        assert_eq!(to, None);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up() {
    let (_client, server) = duplex(16);
    let dial = |_| async { Err::<DuplexStream, _>(Reply::GeneralFailure) };
    let ended = serve(server, None, dial).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
