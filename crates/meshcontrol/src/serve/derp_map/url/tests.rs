use std::path::Path;

use mesh_config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const MAP: &str = r#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"one.example"}]}}}"#;

/// Somebody else's server.
struct Host {
    listener: TcpListener,
    url: String,
}

impl Host {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/map", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// Answers the next who asks.
    async fn answer(&self, status: &str, body: &str) {
        let (mut socket, _) = self.listener.accept().await.unwrap();
        assert_ne!(socket.read(&mut [0; 4096]).await.unwrap(), 0);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // Stays until it is read.
        let _ = socket.read(&mut [0; 1]).await;
    }
}

fn urls(hosts: &[&Host], is_followed: bool) -> MapUrls {
    // Fails only if another test was here before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::defaults(Path::new("/nowhere")).derp;
    config.auto_update_enabled = is_followed;
    let mut urls = MapUrls::new(&config);
    urls.urls.extend(hosts.iter().map(|host| MapUrl::new(host.url.clone(), Instant::now())));
    urls
}

#[tokio::test]
async fn urls_that_hang_hold_up_neither_the_start_nor_others() {
    let (hanging, quick) = (Host::new().await, Host::new().await);
    let mut urls = urls(&[&hanging, &hanging, &quick], true);
    tokio::join!(urls.start(Duration::from_millis(500)), quick.answer("200 OK", MAP));
    assert_eq!(urls.sources().len(), 1);
    assert_eq!(urls.asked.len(), 2, "they may still answer");
    let (_first, _) = hanging.listener.accept().await.unwrap();
    tokio::join!(urls.next(), hanging.answer("200 OK", MAP));
    assert_eq!(urls.sources().len(), 2);
}

#[tokio::test]
async fn urls_are_asked_until_they_answer_though_they_are_not_followed() {
    let (failing, quick) = (Host::new().await, Host::new().await);
    let mut urls = urls(&[&failing, &quick], false);
    let start = urls.start(Duration::from_mins(1));
    tokio::join!(start, failing.answer("502 Bad Gateway", ""), quick.answer("200 OK", MAP));
    assert_eq!(urls.sources().len(), 1);
    let wait = urls.ask_at.unwrap() - Instant::now();
    assert!(wait <= RETRY_MIN, "{wait:?}");
    urls.ask_at = Some(Instant::now());
    // The other would wait for somebody to ask in vain.
    tokio::join!(urls.next(), failing.answer("200 OK", MAP));
    assert_eq!((urls.sources().len(), urls.ask_at), (2, None));
}

#[tokio::test]
async fn urls_that_are_followed_are_asked_again() {
    let host = Host::new().await;
    let mut urls = urls(&[&host], true);
    tokio::join!(urls.start(Duration::from_mins(1)), host.answer("200 OK", MAP));
    assert!(urls.ask_at.unwrap() > Instant::now() + RETRY_MIN);
    urls.ask_at = Some(Instant::now());
    tokio::join!(urls.next(), host.answer("502 Bad Gateway", ""));
    assert_eq!(urls.sources().len(), 1, "what it said before stays");
}
