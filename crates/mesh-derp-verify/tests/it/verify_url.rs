//! Relays that ask a verify URL.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use futures_util::future::{join, join_all};
use mesh_derp_verify::Asks;
use mesh_relay::Candidate;
use tokio::time::Instant;

use crate::server::Server;
use crate::world::{SOURCE, World, key};

fn world(server: &Server, fail_open: bool) -> World {
    World::new(Asks::Url(format!("{}/verify", server.url())), fail_open)
}

/// Whether a client gets in when the server answers so.
async fn check(fail_open: bool, status: u16, body: &str, is_let_in: bool) {
    let server = Server::start().await;
    let world = world(&server, fail_open);
    let login = world.joining(1);
    let request = server.next().await;
    assert!(request.head.starts_with("post /verify http/1.1\r\n"), "{}", request.head);
    let question = format!("{{\"NodePublic\":\"{}\",\"Source\":\"{SOURCE}\"}}", key(1));
    assert_eq!(request.body, question);
    drop(request.answer(status, body).await);
    assert_eq!(login.await.unwrap().is_some(), is_let_in, "{status} {body} {fail_open}");
}

#[tokio::test]
async fn the_server_decides() {
    for fail_open in [false, true] {
        check(fail_open, 200, "{\"Allow\":true}", true).await;
        check(fail_open, 200, "{\"Allow\":false}", false).await;
        check(fail_open, 200, "{}", false).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_none_lets_nobody_in() {
    for fail_open in [false, true] {
        for (status, body) in [
            (200, "yes"),
            (200, &*" ".repeat(5000)),
            (204, ""),
            (307, ""),
            (403, "{\"Allow\":true}"),
            (404, ""),
        ] {
            check(fail_open, status, body, false).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_fails_is_as_good_as_away() {
    check(false, 500, "{\"Allow\":true}", false).await;
    check(true, 503, "", true).await;
}

#[tokio::test]
async fn who_cannot_be_asked_about_is_let_in_if_that_is_wanted() {
    for fail_open in [false, true] {
        let server = Server::start().await;
        let world = world(&server, fail_open);
        drop(server);
        assert_eq!(world.join(1).await.is_some(), fail_open);
        assert_eq!(world.stats.unanswered.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_within_the_login() {
    for fail_open in [false, true] {
        let server = Server::start().await;
        let world = world(&server, fail_open);
        let login = world.joining(1);
        let _request = server.next().await;
        tokio::time::pause();
        let since = Instant::now();
        assert_eq!(login.await.unwrap().is_some(), fail_open);
        assert!((3..8).contains(&since.elapsed().as_secs()));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn logins_of_one_client_wait_for_one_answer() {
    let server = Server::start().await;
    let world = world(&server, false);
    let one = Candidate { key: key(1), source: Some(IpAddr::from([192, 0, 2, 1])) };
    let elsewhere = Candidate { source: Some(IpAddr::from([192, 0, 2, 2])), ..one };
    let asked = [one, one, elsewhere, one];
    let answers = join_all(asked.iter().map(|candidate| world.admission.ask(candidate)));
    let serve = async {
        for _ in 0..2 {
            let request = server.next().await;
            let allow = request.body.contains("\"Source\":\"192.0.2.1\"");
            drop(request.answer(200, &format!("{{\"Allow\":{allow}}}")).await);
        }
    };
    let (answers, ()) = join(answers, serve).await;
    assert_eq!(answers, [true, true, false, true]);
    assert_eq!(world.stats.allowed.load(Ordering::Relaxed), 1);
    assert_eq!(world.stats.denied.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn no_answer_outlives_its_question() {
    let server = Server::start().await;
    let world = world(&server, false);
    for allow in [true, false] {
        let login = world.joining(1);
        drop(server.next().await.answer(200, &format!("{{\"Allow\":{allow}}}")).await);
        assert_eq!(login.await.unwrap().is_some(), allow);
    }
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_is_asked_anew() {
    let server = Server::start().await;
    let world = world(&server, false);
    let one = Candidate { key: key(1), source: None };
    tokio::select! {
        _ = world.admission.ask(&one) => panic!("nobody has answered"),
        _ = server.next() => {}
    }
    let serve = async { drop(server.next().await.answer(200, "{\"Allow\":true}").await) };
    assert_eq!(join(world.admission.ask(&one), serve).await, (true, ()));
}
