use super::*;

const RELAY: NodePublic = NodePublic::from_bytes([0xab; 32]);

fn request(text: &str) -> Request<()> {
    let head = text.replace('\n', "\r\n") + "\r\n";
    let (request, taken) = parse_head(head.as_bytes()).expect("a head").expect("a whole head");
    assert_eq!(taken, head.len());
    request
}

/// Checks what a request is answered with, byte by byte.
fn check(text: &str, expected: &str) {
    let request = request(text);
    let response = answer(&RELAY, &request).expect("a path of the relay").response;
    let encoded = String::from_utf8(encode(&request, &response, true)).expect("text");
    assert_eq!(encoded.replace("\r\n", "\n"), expected, "{text}");
}

#[test]
fn derp_is_upgraded_with_any_method_and_target() {
    let upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\nupgrade: DERP\nconnection: Upgrade\nderp-version: 2\n\
         derp-public-key: {}\n\n",
        "ab".repeat(32)
    );
    check("GET /derp HTTP/1.1\nHost: x\nUpgrade: DERP\nConnection: Upgrade\n", &upgraded);
    check("GET /derp HTTP/1.1\nupgrade: derp\n", &upgraded);
    check("GET /derp HTTP/1.1\nUpgrade: WebSocket\n", &upgraded);
    // The Rust client.
    check("POST https://192.0.2.1:443/derp HTTP/1.1\nUpgrade: DERP\n", &upgraded);
}

#[test]
fn derp_without_upgrade_is_told_so() {
    let check_status = |text: &str, status: u16| {
        let Answer { response, upgrade } =
            answer(&RELAY, &request(text)).expect("a path of the relay");
        assert_eq!(response.status().as_u16(), status, "{text}");
        assert_eq!(upgrade, None);
    };
    check_status("GET /derp HTTP/1.1\n", 426);
    check_status("GET /derp HTTP/1.1\nUpgrade: h2c\n", 426);
    let websocket = "GET /derp HTTP/1.1\nUpgrade: websocket\nSec-WebSocket-Protocol: derp\n";
    check_status(websocket, 426);
    check_status(&format!("{websocket}Sec-WebSocket-Version: 12\n"), 426);
    let websocket = format!("{websocket}Sec-WebSocket-Version: 13\n");
    check_status(&websocket, 400);
    check_status(&format!("{websocket}Sec-WebSocket-Key: short\n"), 400);
    check_status(&format!("{websocket}Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4P\n"), 400);
    let post = websocket.replace("GET", "POST");
    check_status(&format!("{post}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"), 400);
}

/// The key and its answer are those of RFC 6455, section 1.3.
#[test]
fn a_browser_gets_a_websocket() {
    let offered = |protocols: &str| {
        format!(
            "GET /derp HTTP/1.1\nOrigin: https://anywhere.example\nUpgrade: WebSocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\
             Sec-WebSocket-Extensions: permessage-deflate\nSec-WebSocket-Protocol: {protocols}\n"
        )
    };
    let upgraded = "HTTP/1.1 101 Switching Protocols\nupgrade: websocket\nconnection: Upgrade\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\nsec-websocket-protocol: derp\n\n";
    let upgrade = |text: &str| answer(&RELAY, &request(text)).and_then(|answer| answer.upgrade);
    for protocols in ["derp", "chat, derp", "chat\nSec-WebSocket-Protocol: derp"] {
        check(&offered(protocols), upgraded);
        assert_eq!(upgrade(&offered(protocols)), Some(Upgrade::WebSocket));
    }
    // Clients of old.
    assert_eq!(upgrade(&offered("chat")), Some(Upgrade::Derp));
}

#[test]
fn latency_is_measured_by_get_and_head_only() {
    let ok = "HTTP/1.1 200 OK\naccess-control-allow-origin: *\ncontent-length: 0\n\n";
    for path in ["/derp/probe", "/derp/latency-check"] {
        check(&format!("GET {path} HTTP/1.1\n"), ok);
        check(&format!("HEAD {path} HTTP/1.1\n"), ok);
        check(
            &format!("POST {path} HTTP/1.1\n"),
            "HTTP/1.1 405 Method Not Allowed\ncontent-length: 19\n\nbogus probe method\n",
        );
    }
}

#[test]
fn captive_portal_check_repeats_a_decent_challenge() {
    let check = |challenge: &str, repeated: bool| {
        let text = format!("GET /generate_204 HTTP/1.1\nX-Tailscale-Challenge: {challenge}\n");
        let response = answer(&RELAY, &request(&text)).expect("a path of the relay").response;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[header::CACHE_CONTROL], NO_CACHE);
        let header = response.headers().get("x-tailscale-response");
        let expected = repeated.then(|| format!("response {challenge}"));
        assert_eq!(header.and_then(|value| value.to_str().ok()), expected.as_deref());
    };
    check("ts_derp1.example.com", true);
    check(&"a".repeat(64), true);
    check(&"a".repeat(65), false);
    check("two words", false);
    check("<script>", false);
    check("", false);
}

#[test]
fn robots_are_sent_away_and_other_paths_left_alone() {
    check(
        "GET /robots.txt HTTP/1.1\n",
        "HTTP/1.1 200 OK\ncontent-length: 26\n\nUser-agent: *\nDisallow: /\n",
    );
    check("HEAD /robots.txt HTTP/1.1\n", "HTTP/1.1 200 OK\ncontent-length: 26\n\n");
    let home = answer(&RELAY, &request("GET / HTTP/1.1\n")).expect("a path of the relay");
    assert!(home.response.body().starts_with("This is a DERP relay"));
    for path in ["/derp/", "/derp/x", "/key"] {
        assert!(answer(&RELAY, &request(&format!("GET {path} HTTP/1.1\n"))).is_none());
    }
}

#[test]
fn a_connection_is_kept_only_if_no_body_can_follow() {
    let check = |text: &str, kept: bool| assert_eq!(keeps_alive(&request(text)), kept, "{text}");
    check("GET / HTTP/1.1\n", true);
    check("POST / HTTP/1.1\nContent-Length: 0\n", true);
    check("GET / HTTP/1.0\n", false);
    check("GET / HTTP/1.1\nConnection: Close\n", false);
    check("POST / HTTP/1.1\nContent-Length: 1\n", false);
    check("POST / HTTP/1.1\nTransfer-Encoding: chunked\n", false);
}

#[test]
fn heads_are_refused_or_awaited() {
    assert!(parse_head(b"GET /derp HTTP/1.1\r\nHost").expect("a beginning").is_none());
    assert!(parse_head(b"").expect("a beginning").is_none());
    let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
    let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
    for bad in ["\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\n", "GET /\x7f HTTP/1.1\r\n\r\n", &many] {
        assert!(parse_head(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
