//! Who does not come so far as to a login: requests, and what is behind an upgrade.

use std::time::Duration;

use mesh_relay::Refusal;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::{Scene, knock, write_until_hung_up_on};

const WEBSOCKET: &str = "GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn heads_without_end_and_without_sense_are_refused() {
    let mut scene = Scene::new().await;
    let giant = format!("GET /derp HTTP/1.1\r\nCookie: {}\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100_000));
    let tls = "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}\u{3}";
    let other = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (refused, head) in (1..).zip([giant.as_str(), &many, tls, other, "\0\0\0\0\r\n\r\n"]) {
        write_until_hung_up_on(knock(&scene.relay, 4096), head.as_bytes()).await;
        scene.expect_refused(Refusal::Http, refused).await;
    }
}

#[tokio::test]
async fn one_connection_does_not_ask_for_ever() {
    let mut scene = Scene::new().await;
    let asking = "GET /derp/probe HTTP/1.1\r\n\r\n".repeat(10_000);
    write_until_hung_up_on(knock(&scene.relay, 4096), asking.as_bytes()).await;
    scene.talk().await;
}

#[tokio::test(start_paused = true)]
async fn who_drips_at_any_stage_is_cut_in_time() {
    let mut scene = Scene::new().await;
    let upgrade = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n";
    let hello = super::login(&scene.relay, 66);
    let stages = [
        Vec::new(),
        b"GET /derp".to_vec(),
        [upgrade.as_bytes(), b"\x02\0\0\0\xa0"].concat(),
        [upgrade.as_bytes(), &hello[..hello.len() - 20]].concat(),
        // A message of a login, of which a byte comes now and then.
        [WEBSOCKET.as_bytes(), b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0\x02\0\0\0\xa0"].concat(),
    ];
    for (refused, stage) in (1..).zip(stages) {
        let start = Instant::now();
        let mut io = knock(&scene.relay, 64 << 10);
        io.write_all(&stage).await.expect("the relay reads");
        while io.write_all(b"0").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        assert!(start.elapsed() <= Duration::from_secs(12), "{:?}", start.elapsed());
        scene.expect_refused(Refusal::Timeout, refused).await;
    }
}

#[tokio::test]
async fn junk_behind_an_upgrade_is_no_login() {
    let mut scene = Scene::new().await;
    let upgrade = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n";
    let junk =
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 5], &vec![0xff; 100_000], b"\x02\xff\xff\xff\xff"];
    for (refused, junk) in (1..).zip(junk) {
        let bytes = [upgrade.as_bytes(), junk].concat();
        write_until_hung_up_on(knock(&scene.relay, 4096), &bytes).await;
        scene.expect_refused(Refusal::Login, refused).await;
    }
}

#[tokio::test]
async fn rubbish_in_a_websocket_is_answered_with_a_close() {
    let mut scene = Scene::new().await;
    let rubbish = [
        (&b"\x82\x05Hello"[..], 1002),                       // without a mask
        (b"\xc2\x80\0\0\0\0", 1002),                         // compressed
        (b"\x83\x80\0\0\0\0", 1002),                         // of no kind
        (b"\x80\x80\0\0\0\0", 1002),                         // the end of no message
        (b"\x09\x80\0\0\0\0", 1002),                         // half a ping
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),                 // a long ping
        (b"\x88\x81\0\0\0\0\x03", 1002),                     // half a close
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1002), // without end
        (b"\x81\x85\0\0\0\0Hello", 1003),                    // text
    ];
    for (refused, (bytes, code)) in (1..).zip(rubbish) {
        let code = u16::to_be_bytes(code);
        let rubbish = [WEBSOCKET.as_bytes(), bytes].concat();
        let answer = write_until_hung_up_on(knock(&scene.relay, 4096), &rubbish).await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        assert!(answer.ends_with(&[&b"\x88\x02"[..], &code].concat()));
        scene.expect_refused(Refusal::WebSocket, refused).await;
    }
}

#[tokio::test]
async fn a_flood_of_websocket_pings_costs_a_pong_now_and_then() {
    let mut scene = Scene::new().await;
    let asking = b"\x89\x84\0\0\0\0ping".repeat(20_000);
    let flood = [WEBSOCKET.as_bytes(), &asking, b"\x88\x80\0\0\0\0"].concat();
    let answer = write_until_hung_up_on(knock(&scene.relay, 64 << 10), &flood).await;
    let pongs = answer.windows(6).filter(|bytes| *bytes == b"\x8a\x04ping").count();
    assert!((1..1000).contains(&pongs), "{pongs} pongs");
    assert!(answer.ends_with(b"\x88\x02\x03\xe8"));
    scene.talk().await;
}
