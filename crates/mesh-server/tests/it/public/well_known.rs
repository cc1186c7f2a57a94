use futures_util::StreamExt as _;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::server::{TestServer, within};

#[tokio::test]
async fn the_version_is_told() {
    let server = TestServer::start().await;
    let json = server.get("/version").await.json();
    assert_eq!(json["name"], "meshcontrol");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn robots_are_kept_out() {
    let server = TestServer::start().await;
    let answer = server.get("/robots.txt").await;
    assert_eq!((answer.status, &*answer.body), (200, "User-agent: *\nDisallow: /\n"));
}

#[tokio::test]
async fn pages_cannot_be_framed_or_guessed_at() {
    let server = TestServer::start().await;
    for target in ["/version", "/register/x", "/nowhere"] {
        let answer = server.get(target).await;
        assert_eq!(answer.header("x-frame-options"), "DENY", "{target}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{target}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    }
}

#[tokio::test]
async fn a_captive_portal_check_gets_its_challenge_back() {
    let server = TestServer::start().await;
    let ask = async |challenge: &str| {
        let header = format!("X-Tailscale-Challenge: {challenge}\r\n");
        let request = format!("GET /generate_204 HTTP/1.1\r\nHost: test\r\n{header}\r\n");
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, 204);
        assert!(answer.header("cache-control").starts_with("no-cache, no-store"));
        answer.header("x-tailscale-response").to_owned()
    };
    assert_eq!(ask("ts_derp.example.com").await, "response ts_derp.example.com");
    assert_eq!(ask("<script>").await, "");
    assert_eq!(ask(&"x".repeat(65)).await, "");
}

#[tokio::test]
async fn a_relay_that_is_measured_answers() {
    let server = TestServer::start().await;
    for target in ["/derp/probe", "/derp/latency-check"] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    assert_eq!(server.get("/derp").await.status, 426);
}

#[tokio::test]
async fn a_browser_comes_to_the_relay_by_websocket() {
    let server = TestServer::start().await;
    let mut request = "ws://test/derp".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("derp"));
    let (mut socket, _) = client_async(request, server.connect().await).await.unwrap();
    let greeting = within(socket.next()).await.unwrap().unwrap().into_data();
    assert!(greeting.starts_with("\x01\0\0\0\x28DERP🔑".as_bytes()), "{greeting:?}");
}
