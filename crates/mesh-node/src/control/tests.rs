use std::time::Duration;

use jiff::Timestamp;
use mesh_wire::{Base64, EndpointType, MapRequest, PingRequest, PingResponse};
use tokio::time::timeout;

use self::keeper::pause_after;
use self::server::{Lab, Setup, expired, needs_login, node_message, refused, registered};
use super::*;
use crate::core::Pong;
use crate::engine::Request;

mod server;

const LOGIN: &str = "http://login.example/1";

fn keyed() -> Setup {
    Setup { auth_key: "tskey-auth-1", ..Setup::default() }
}

#[tokio::test]
async fn a_node_registers_with_its_auth_key_and_opens_its_stream() {
    let mut lab = Lab::new(keyed()).await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.node_key, lab.stored().node.public());
    assert!(request.old_node_key.is_zero() && request.expiry.is_none());
    assert_eq!(request.auth.expect("an auth key").auth_key.0, "tskey-auth-1");
    assert!(!lab.stored().is_registered);
    asked.answer_register(&registered());
    lab.open_stream().await;
    assert!(lab.stored().is_registered);
    assert!(matches!(lab.next_update().await, Update::Began));
    assert!(matches!(lab.next_update().await, Update::Message(_)));
}

#[tokio::test]
async fn a_registered_node_comes_back_without_registering() {
    let (mut lab, _stream) = Lab::connected(keyed()).await;
    assert!(matches!(lab.next_update().await, Update::Began));
}

#[tokio::test]
async fn a_node_that_the_server_has_forgotten_registers_again() {
    let mut lab = Lab::new(Setup { is_registered: true, ..Setup::default() }).await;
    lab.next().await.answer(404, "node not found");
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.node_key, lab.key.borrow().public());
    asked.answer_register(&registered());
    lab.open_stream().await;
}

#[tokio::test]
async fn a_login_that_comes_through_ends_up_connected() {
    let mut lab = Lab::new(Setup::default()).await;
    lab.next_register().await.0.answer_register(&needs_login(LOGIN));
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.followup, LOGIN);
    lab.wait_for_phase(Phase::NeedsLogin(LOGIN.to_owned())).await;
    asked.answer_register(&registered());
    lab.open_stream().await;
}

#[tokio::test]
async fn a_login_outlives_the_connection() {
    let mut lab = Lab::new(Setup::default()).await;
    let (asked, first) = lab.next_register().await;
    asked.answer_register(&needs_login(LOGIN));
    // The server is short of something: the client comes again over another connection.
    lab.next_register().await.0.answer(503, "");
    let (asked, again) = lab.next_register().await;
    assert_eq!((again.followup.as_str(), again.node_key), (LOGIN, first.node_key));
    assert_eq!(*lab.phase.borrow(), Phase::NeedsLogin(LOGIN.to_owned()));
    asked.answer_register(&registered());
    lab.open_stream().await;
}

#[tokio::test]
async fn a_login_url_that_is_no_page_is_refused() {
    for url in ["javascript:alert(1)", "file:///etc/passwd", "https://x/\u{1b}[2J", "//x"] {
        let mut lab = Lab::new(Setup::default()).await;
        lab.next_register().await.0.answer_register(&needs_login(url));
        let mut phase = lab.phase.clone();
        phase.wait_for(|phase| matches!(phase, Phase::Refused(_))).await.expect("refused");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_server() {
    let mut lab = Lab::new(keyed()).await;
    lab.next_register().await.0.answer_register(&refused("invalid auth key"));
    lab.wait_for_phase(Phase::Refused("invalid auth key".to_owned())).await;
}

#[tokio::test]
async fn an_expired_key_is_replaced_once_somebody_logs_in() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let before = lab.stored();
    stream.send(&node_message(Some(Timestamp::UNIX_EPOCH)));
    stream.closed().await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.old_node_key, before.node.public());
    assert_ne!(request.node_key, before.node.public());
    assert_eq!(request.auth, None, "who was deleted comes back by itself");
    assert_eq!(lab.stored().node, before.node);
    asked.answer_register(&needs_login(LOGIN));
    lab.wait_for_phase(Phase::NeedsLogin(LOGIN.to_owned())).await;
    lab.next_register().await.0.answer_register(&registered());
    lab.open_stream().await;
    assert_eq!(lab.stored().node.public(), request.node_key);
}

#[tokio::test]
async fn an_expired_key_is_replaced_by_the_auth_key_when_a_program_asks() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    stream.send(&node_message(Some(Timestamp::UNIX_EPOCH)));
    lab.next_register().await.0.answer_register(&needs_login(LOGIN));
    lab.wait_for_phase(Phase::NeedsLogin(LOGIN.to_owned())).await;
    let answer = lab.order(Command::Reauthenticate).await;
    loop {
        let (asked, request) = lab.next_register().await;
        if request.auth.is_some() {
            assert_eq!(request.followup, "");
            asked.answer_register(&registered());
            break;
        }
    }
    answer.get().await.expect("a new key");
    lab.open_stream().await;
}

#[tokio::test]
async fn a_key_that_is_refused_as_expired_is_replaced() {
    let mut lab = Lab::new(keyed()).await;
    let (asked, first) = lab.next_register().await;
    asked.answer_register(&expired());
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.old_node_key, first.node_key);
    assert_ne!(request.node_key, first.node_key);
    asked.answer_register(&registered());
    lab.open_stream().await;
    assert_eq!(lab.stored().node.public(), request.node_key);
}

#[tokio::test]
async fn a_key_that_expires_without_a_word_is_noticed() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let soon = crate::host::wall_clock() + Duration::from_millis(50);
    stream.send(&node_message(Some(soon)));
    lab.next_register().await;
    assert!(crate::host::wall_clock() >= soon);
}

#[tokio::test]
async fn a_server_that_calls_every_key_expired_gets_no_more_of_them() {
    let mut lab = Lab::new(keyed()).await;
    let first = lab.stored();
    lab.next_register().await.0.answer_register(&expired());
    lab.next_register().await.0.answer_register(&expired());
    let mut phase = lab.phase.clone();
    phase.wait_for(|phase| matches!(phase, Phase::Refused(_))).await.expect("refused");
    assert_eq!(lab.stored(), first);
}

#[tokio::test]
async fn a_new_key_replaces_a_good_one_while_the_stream_goes_on() {
    let (mut lab, _stream) = Lab::connected(keyed()).await;
    let old = lab.key.borrow().clone();
    let answer = lab.order(Command::Reauthenticate).await;
    let stream = lab.open_stream().await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.old_node_key, old.public());
    asked.answer_register(&needs_login(LOGIN));
    let (asked, followup) = lab.next_register().await;
    assert_eq!(followup.node_key, request.node_key);
    lab.wait_for_phase(Phase::NeedsLogin(LOGIN.to_owned())).await;
    assert!(stream.is_open());
    assert_eq!(*lab.key.borrow(), old);
    asked.answer_register(&registered());
    answer.get().await.expect("a new key");
    assert_eq!(lab.key.borrow().public(), request.node_key);
    lab.open_stream().await;
    assert_eq!(lab.stored().node.public(), request.node_key);
}

#[tokio::test]
async fn a_refused_new_key_leaves_the_old_one_in_use() {
    let (mut lab, _stream) = Lab::connected(keyed()).await;
    let before = lab.stored();
    let answer = lab.order(Command::Reauthenticate).await;
    let _stream = lab.open_stream().await;
    lab.next_register().await.0.answer_register(&refused("key is used up"));
    let error = answer.get().await.expect_err("a refusal");
    assert!(matches!(&error, NodeError::Refused(text) if text == "key is used up"), "{error:?}");
    lab.open_stream().await;
    assert_eq!(lab.stored(), before);
}

#[tokio::test]
async fn a_forced_login_registers_a_new_key_first() {
    let setup = Setup { is_registered: true, force_login: true, ..keyed() };
    let mut lab = Lab::new(setup).await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.old_node_key, lab.stored().node.public());
    asked.answer_register(&registered());
    lab.open_stream().await;
    assert_eq!(lab.stored().node.public(), request.node_key);
}

#[tokio::test]
async fn a_logout_tells_the_server_and_forgets_the_key() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let old = lab.key.borrow().clone();
    let answer = lab.order(Command::Logout).await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.node_key, old.public());
    assert!(request.expiry.expect("an expiry") < crate::host::wall_clock());
    assert!(!stream.is_open());
    asked.answer_register(&expired());
    answer.get().await.expect("logged out");
    assert_eq!(*lab.phase.borrow(), Phase::LoggedOut);
    let state = lab.stored();
    assert!(!state.is_registered && state.node != old && state.node == *lab.key.borrow());
    let mut last = None;
    while let Ok(update) = lab.updates.try_recv() {
        last = Some(update);
    }
    assert!(matches!(last, Some(Update::LoggedOut)), "{last:?}");

    // Nothing happens until somebody wants the node back, as a new one.
    let answer = lab.order(Command::Reauthenticate).await;
    let (asked, request) = lab.next_register().await;
    assert_eq!(request.node_key, state.node.public());
    assert!(request.old_node_key.is_zero() && request.expiry.is_none());
    asked.answer_register(&registered());
    answer.get().await.expect("back again");
    lab.open_stream().await;
}

#[tokio::test]
async fn a_logout_that_cannot_be_told_still_forgets_the_key() {
    let (mut lab, _stream) = Lab::connected(keyed()).await;
    let old = lab.key.borrow().clone();
    lab.stop_server().await;
    let answer = lab.order(Command::Logout).await;
    let error = answer.get().await.expect_err("nobody there");
    assert!(matches!(error, NodeError::NotTold(_)), "{error:?}");
    assert_ne!(lab.stored().node, old);
    assert_eq!(*lab.phase.borrow(), Phase::LoggedOut);
}

#[tokio::test]
async fn a_logout_ends_a_login() {
    let mut lab = Lab::new(Setup::default()).await;
    let waiting = lab.order(Command::Reauthenticate).await;
    lab.next_register().await.0.answer_register(&needs_login(LOGIN));
    lab.wait_for_phase(Phase::NeedsLogin(LOGIN.to_owned())).await;
    lab.order(Command::Logout).await.get().await.expect("nothing to tell");
    waiting.get().await.expect_err("logged out");
    assert_eq!(*lab.phase.borrow(), Phase::LoggedOut);
}

fn question(url: &str, types: &str, payload: &[u8]) -> MapResponse {
    let question = PingRequest {
        url: url.to_owned(),
        types: types.to_owned(),
        payload: Base64(payload.to_vec()),
        ..PingRequest::default()
    };
    MapResponse { ping_request: Some(question), ..MapResponse::keep_alive() }
}

const ECHO: &[u8] = b"GET /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn questions_are_answered_once_and_only_to_the_server() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    stream.send(&question("https://elsewhere.example/unknown", "carrier pigeon", b""));
    stream.send(&question("no url", "c2n", ECHO));
    stream.send(&question("https://unused/bad", "c2n", b"not http"));
    stream.send(&question("https://elsewhere.example/c2n?id=1", "c2n", ECHO));
    stream.send(&question("https://elsewhere.example/c2n?id=1", "c2n", ECHO));
    let asked = lab.next().await;
    assert_eq!((&asked.method, &*asked.path), (&http::Method::POST, "/c2n?id=1"));
    assert!(asked.body.starts_with(b"HTTP/1.1 200 OK\r\n") && asked.body.ends_with(b"\r\nhi"));
    asked.answer(200, "");
    stream.send(&question("https://unused/c2n?id=2", "c2n", ECHO));
    assert_eq!(lab.next().await.path, "/c2n?id=2");
}

#[tokio::test]
async fn a_sign_of_life_goes_the_way_it_is_wanted() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    for is_inside in [false, true] {
        let mut message = question(&format!("https://unused/{is_inside}?id=1"), "", b"");
        message.ping_request.as_mut().expect("a question").url_is_noise = is_inside;
        stream.send(&message);
        let asked = lab.next().await;
        assert_eq!(asked.path, format!("/{is_inside}?id=1"));
        assert_eq!((asked.is_inside, &asked.method), (is_inside, &http::Method::HEAD));
        asked.answer(200, "");
    }
}

#[tokio::test]
async fn peers_are_pinged_for_the_server() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let mut message = question("https://unused/pong", "peerapi,disco,disco,x,TSMP", b"");
    message.ping_request.as_mut().expect("a question").ip = Some([100, 64, 0, 2].into());
    stream.send(&message);
    for _ in 0..3 {
        match lab.requests.recv().await {
            Some(Request::PingDisco(_, answer)) => {
                let latency = Duration::from_millis(1500);
                let direct = Some(([192, 0, 2, 1], 41641).into());
                answer.send(Pong { latency, direct, relay: None }).expect("somebody waits");
            }
            // Nobody has the address.
            Some(Request::PingTsmp(..)) => {}
            Some(Request::WhoIs(_, answer)) => answer.send(None).expect("somebody waits"),
            other => panic!("{other:?}"),
        }
    }
    let mut answers = [lab.next().await, lab.next().await, lab.next().await].map(|asked| {
        assert_eq!(asked.path, "/pong");
        let answer: PingResponse = asked.read();
        (answer.ping_type, answer.latency_seconds, answer.endpoint, answer.err)
    });
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    let no_peer = "no peer has the address 100.64.0.2".to_owned();
    assert_eq!(answers[0], ("TSMP".to_owned(), 0.0, String::new(), no_peer.clone()));
    let endpoint = "192.0.2.1:41641".to_owned();
    assert_eq!(answers[1], ("disco".to_owned(), 1.5, endpoint, String::new()));
    assert_eq!(answers[2], ("peerapi".to_owned(), 0.0, String::new(), no_peer));
}

#[tokio::test]
async fn a_server_that_asks_without_taking_answers_is_asked_to_wait() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let mut asked = Vec::new();
    for id in 0..answers::ANSWERS_MAX {
        stream.send(&question(&format!("https://unused/{id}"), "c2n", ECHO));
        asked.push(lab.next().await);
    }
    stream.send(&question("https://unused/too-many", "c2n", ECHO));
    asked.remove(0).answer(200, "");
    // The one too many is dropped. One that comes when there is room again is answered.
    let mut id = 0;
    let answered = loop {
        stream.send(&question(&format!("https://unused/again/{id}"), "c2n", ECHO));
        id += 1;
        if let Ok(asked) = timeout(Duration::from_millis(100), lab.next()).await {
            break asked;
        }
    };
    assert!(answered.path.starts_with("/again/"), "{}", answered.path);
}

#[tokio::test]
async fn a_stream_must_begin_with_the_node() {
    let mut lab = Lab::new(Setup { is_registered: true, ..Setup::default() }).await;
    let (stream, _) = lab.open_empty_stream().await;
    stream.send(&MapResponse::keep_alive());
    stream.send(&MapResponse { domain: "tail.net".to_owned(), ..MapResponse::default() });
    stream.closed().await;
    lab.open_stream().await;
}

#[tokio::test]
async fn a_machine_that_is_not_approved_waits_in_its_stream() {
    let mut lab = Lab::new(Setup { is_registered: true, ..Setup::default() }).await;
    let (stream, _) = lab.open_empty_stream().await;
    let unapproved = MapResponse { node: Some(Box::default()), ..MapResponse::default() };
    stream.send(&unapproved);
    lab.wait_for_phase(Phase::NeedsMachineAuth).await;
    stream.send(&node_message(None));
    lab.wait_for_phase(Phase::Connected).await;
}

#[tokio::test]
async fn what_the_server_does_not_take_in_is_told_again() {
    let (mut lab, stream) = Lab::connected(keyed()).await;
    let endpoint = (([192, 0, 2, 1], 41641).into(), EndpointType::LOCAL);
    lab.report.send_modify(|report| report.endpoints.push(endpoint));
    for _ in 0..3 {
        loop {
            let asked = lab.next_of_all().await;
            let request: MapRequest = asked.read();
            assert!(request.omit_peers && !request.stream);
            if request.endpoints == [endpoint.0] {
                break asked.answer(500, "");
            }
            asked.answer(200, "");
        }
    }
    assert!(stream.is_open());
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let (lab, stream) = Lab::connected(keyed()).await;
    tokio::time::pause();
    let mut phase = lab.phase.clone();
    phase.wait_for(|phase| *phase == Phase::Starting).await.expect("a phase");
    tokio::time::resume();
    stream.closed().await;
}

#[test]
fn a_server_does_not_send_a_node_to_sleep() {
    let busy = |seconds| {
        let status = http::StatusCode::SERVICE_UNAVAILABLE;
        let retry_after = Some(Duration::from_secs(seconds));
        RequestError::Status { status, message: String::new(), retry_after }.into()
    };
    assert_eq!(pause_after(&busy(7), 1), Duration::from_secs(7));
    assert!(pause_after(&busy(u64::MAX), 1) < Duration::from_secs(1));
}
