//! Guessing keys.

use ::http::StatusCode;
use mesh_server::secrets::{UNKNOWN_KEYS_MAX, WRONG_SECRETS_MAX};

use crate::channel::Forwarded;
use crate::server::{Setup, TestServer, register_request};

async fn behind_a_proxy() -> TestServer {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    TestServer::start_as(Setup { trusted_proxies, ..Setup::default() }).await
}

/// Tries a key until the answer is 429, and says after how many tries.
async fn tries_until_turned_away(client: &mut Forwarded, key: &str) -> u32 {
    let body = serde_json::to_string(&register_request(1, key)).unwrap();
    for tries in 0..100 {
        let (status, headers) = client.post("/machine/register", body.clone()).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            return tries;
        }
        assert_eq!(status, StatusCode::OK);
    }
    panic!("it may guess for ever");
}

#[tokio::test]
async fn who_guesses_is_turned_away() {
    let server = behind_a_proxy().await;
    let mut guesser = Forwarded::connect(&server, 1, "192.0.2.1").await;
    assert_eq!(tries_until_turned_away(&mut guesser, "x").await, UNKNOWN_KEYS_MAX);
    let key = server.preauth_key(|key| key).await;
    let wrong = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let mut guesser = Forwarded::connect(&server, 1, "192.0.2.2").await;
    assert_eq!(tries_until_turned_away(&mut guesser, &wrong).await, WRONG_SECRETS_MAX);
    // Another channel of the same source, with the right key, has to wait as well.
    let mut again = Forwarded::connect(&server, 2, "192.0.2.2").await;
    let right = serde_json::to_string(&register_request(2, &key)).unwrap();
    let (status, _) = again.post("/machine/register", right.clone()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    // Others do not.
    let mut other = Forwarded::connect(&server, 2, "198.51.100.1").await;
    assert_eq!(other.post("/machine/register", right).await.0, StatusCode::OK);
    assert!(server.node(2).is_some());
}

#[tokio::test]
async fn a_registered_client_does_not_suffer_from_a_guesser_beside_it() {
    let server = behind_a_proxy().await;
    let key = server.preauth_key(|key| key).await;
    let body = serde_json::to_string(&register_request(2, &key)).unwrap();
    let mut client = Forwarded::connect(&server, 2, "192.0.2.1").await;
    assert_eq!(client.post("/machine/register", body.clone()).await.0, StatusCode::OK);
    let mut guesser = Forwarded::connect(&server, 1, "192.0.2.1").await;
    tries_until_turned_away(&mut guesser, "x").await;
    assert_eq!(client.post("/machine/register", body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn only_a_trusted_proxy_names_the_source() {
    let server = TestServer::start().await;
    let mut client = Forwarded::connect(&server, 1, "192.0.2.1").await;
    tries_until_turned_away(&mut client, "x").await;
    // It is us who are turned away, whoever we say that we are.
    let mut client = Forwarded::connect(&server, 1, "192.0.2.2").await;
    assert_eq!(tries_until_turned_away(&mut client, "x").await, 0);
}

#[tokio::test]
async fn a_client_cannot_hide_behind_what_it_says_itself() {
    let server = behind_a_proxy().await;
    // The proxy appends the address that it sees to what the client sent.
    let mut client = Forwarded::connect(&server, 1, "198.51.100.1, 192.0.2.1").await;
    tries_until_turned_away(&mut client, "x").await;
    for forged in ["198.51.100.2, 192.0.2.1", "nonsense, 192.0.2.1", "192.0.2.1, 127.0.0.1"] {
        let mut client = Forwarded::connect(&server, 1, forged).await;
        assert_eq!(tries_until_turned_away(&mut client, "x").await, 0, "{forged}");
    }
}
