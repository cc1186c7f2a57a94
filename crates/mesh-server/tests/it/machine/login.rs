//! Logins that wait for an admin.

use std::time::Duration;

use ::http::StatusCode;
use mesh_client::{ControlClient, RequestError};
use mesh_state::{Command, LoginState};
use mesh_wire::{RegisterRequest, RegisterResponse};
use tokio::task::JoinHandle;

use crate::channel::Forwarded;
use crate::server::{Setup, TestServer, auth_id, register_request, within};

type Answer = Result<RegisterResponse, RequestError>;

/// Begins a login of machine 1 and gives the URL to visit.
async fn begin(client: &ControlClient) -> String {
    let response = client.register(&register_request(1, "")).await.unwrap();
    assert!(!response.machine_authorized && response.error.is_empty(), "{response:?}");
    response.auth_url
}

fn followup(url: &str) -> RegisterRequest {
    RegisterRequest { followup: url.to_owned(), ..register_request(1, "") }
}

/// Asks how a login stands, and sees to it that the server holds the question.
async fn ask(client: &ControlClient, url: &str) -> JoinHandle<Answer> {
    let (client, request) = (client.clone(), followup(url));
    let asked = tokio::spawn(async move { client.register(&request).await });
    // A question changes nothing, so nothing tells when it is being held.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    asked
}

#[tokio::test]
async fn who_waits_is_answered_on_approval() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    let asked = ask(&client, &url).await;
    let user = server.user().await.id;
    server.submit(Command::ApproveLogin { auth_id: auth_id(&url), user }).await;
    let response = within(asked).await.unwrap().unwrap();
    assert!(response.machine_authorized, "{response:?}");
    assert_eq!((&*response.auth_url, &*response.login.login_name), ("", "ada"));
    assert_eq!(server.node(1).unwrap().owner, mesh_model::Owner::User(user));
}

#[tokio::test]
async fn who_waits_is_answered_on_rejection() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    let asked = ask(&client, &url).await;
    server.submit(Command::RejectLogin { auth_id: auth_id(&url) }).await;
    let response = within(asked).await.unwrap().unwrap();
    assert!(response.error.contains("rejected") && !response.machine_authorized, "{response:?}");
    assert_eq!(server.store.snapshot().tailnet.node_count(), 0);
}

#[tokio::test]
async fn who_waits_in_another_channel_is_answered_too() {
    let server = TestServer::start().await;
    let url = begin(&server.client(1).await).await;
    let asked = ask(&server.client(1).await, &url).await;
    let user = server.user().await.id;
    server.submit(Command::ApproveLogin { auth_id: auth_id(&url), user }).await;
    assert!(within(asked).await.unwrap().unwrap().machine_authorized);
}

#[tokio::test]
async fn another_machine_does_not_come_in_by_it() {
    let server = TestServer::start().await;
    let url = begin(&server.client(1).await).await;
    let thief = server.client(2).await;
    let user = server.user().await.id;
    for request in
        [followup(&url), RegisterRequest { followup: url.clone(), ..register_request(2, "") }]
    {
        let response = thief.register(&request).await.unwrap();
        assert!(!response.auth_url.is_empty() && response.auth_url != url, "{response:?}");
    }
    server.submit(Command::ApproveLogin { auth_id: auth_id(&url), user }).await;
    assert!(thief.register(&followup(&url)).await.unwrap().error.contains("another machine"));
    assert_eq!(server.store.snapshot().tailnet.node_count(), 1);
}

#[tokio::test]
async fn who_waits_for_long_is_sent_to_the_same_page_again() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    let asked = ask(&client, &url).await;
    tokio::time::pause();
    let response = asked.await.unwrap().unwrap();
    assert_eq!((&*response.auth_url, response.machine_authorized), (&*url, false));
}

#[tokio::test]
async fn a_login_that_ran_out_begins_anew() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    server.clock.advance(Duration::from_mins(15));
    server.user().await;
    server.until(|server| server.store.snapshot().logins.is_empty()).await;
    for unknown in [&*url, "x", "https://elsewhere.example/register/1", "/"] {
        let response = client.register(&followup(unknown)).await.unwrap();
        assert_ne!(response.auth_url, url, "{unknown}");
        let login = server.store.snapshot().logins.get(&auth_id(&response.auth_url)).cloned();
        assert_eq!(login.unwrap().state, LoginState::Waiting);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    let asked = ask(&client, &url).await;
    asked.abort();
    drop(client);
    server.until(|server| server.channels() == 0).await;
}

#[tokio::test]
async fn a_server_that_stops_lets_go_of_who_waits() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let url = begin(&client).await;
    let asked = ask(&client, &url).await;
    server.stop();
    let error = within(asked).await.unwrap().unwrap_err();
    let RequestError::Status { status, .. } = error else { panic!("{error:?}") };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(client);
    server.stopped().await;
}

#[tokio::test]
async fn one_network_cannot_fill_the_waiting_room() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = TestServer::start_as(Setup { trusted_proxies, ..Setup::default() }).await;
    let body = |number| serde_json::to_string(&register_request(number, "")).unwrap();
    let mut client = Forwarded::connect(&server, 1, "192.0.2.1").await;
    for number in 1..=20 {
        let (status, _) = client.post("/machine/register", body(number)).await;
        assert_eq!(status, StatusCode::OK, "{number}");
    }
    let mut neighbour = Forwarded::connect(&server, 2, "192.0.2.200").await;
    let (status, headers) = neighbour.post("/machine/register", body(21)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let mut other = Forwarded::connect(&server, 3, "192.0.3.1").await;
    assert_eq!(other.post("/machine/register", body(22)).await.0, StatusCode::OK);
    assert_eq!(server.store.snapshot().logins.len(), 21);
}
