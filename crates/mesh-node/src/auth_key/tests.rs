use std::convert::Infallible;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

fn client(text: &str) -> Client {
    match AuthKey::parse(text) {
        Ok(AuthKey::Client(client)) => client,
        other => panic!("{text}: {other:?}"),
    }
}

fn check_refused(text: &str, error: &str) {
    let refused = AuthKey::parse(text).expect_err("not understood");
    assert!(refused.to_string().contains(error), "{refused}");
}

#[test]
fn a_key_stays_as_it_is() {
    let key = SecretText("tskey-auth-x?y".to_owned());
    assert_eq!(AuthKey::parse(&key.0).expect("a key"), AuthKey::Plain(key));
}

#[test]
fn keys_of_a_client_are_ephemeral_unless_it_says_otherwise() {
    let plain = client("tskey-client-1-2");
    let secret = SecretText("tskey-client-1-2".to_owned());
    assert_eq!(plain.credential, Credential::Secret(secret));
    assert_eq!((plain.is_ephemeral, plain.is_preauthorized, plain.base_url), (true, false, None));
    let all = "tskey-client-1?ephemeral=false&preauthorized=true&baseURL=https%3a%2F%2Fapi.example";
    let all = client(all);
    assert_eq!((all.is_ephemeral, all.is_preauthorized), (false, true));
    assert_eq!(all.base_url.expect("a URL").to_string(), "https://api.example");
}

#[test]
fn what_is_not_understood_is_refused() {
    check_refused("tskey-client-1?reusable=true", "reusable=true");
    check_refused("tskey-client-1?ephemeral", "ephemeral");
    check_refused("tskey-client-1?ephemeral=perhaps", "perhaps");
    check_refused("tskey-client-1?baseURL=https%3", "https%3");
    check_refused("tskey-client-1?baseURL=https%FF", "https%FF");
    check_refused("tskey-client-1?baseURL=ftp://x", "baseURL");
}

fn workload(client_id: &str, id_token: &str, audience: &str) -> Workload {
    Workload {
        client_id: client_id.to_owned(),
        id_token: SecretText(id_token.to_owned()),
        audience: audience.to_owned(),
    }
}

#[test]
fn an_auth_key_comes_before_the_identity_of_a_workload() {
    let chosen = |text: &str| AuthKey::choose(text, workload("id", "", "")).ok();
    let key = SecretText("tskey-auth-1".to_owned());
    assert_eq!(chosen(&key.0), Some(AuthKey::Plain(key)));
    assert!(matches!(chosen("tskey-client-1"), Some(AuthKey::Client(_))));
    assert_eq!(chosen(""), None, "the workload is not even looked at");
    let nothing = AuthKey::choose("", Workload::default()).expect("nobody");
    assert_eq!(nothing, AuthKey::Plain(SecretText::default()));
}

#[test]
fn a_program_comes_before_the_environment() {
    let both = workload("id", "", "").or(|name| Some(format!("${name}")));
    let told = [both.client_id, both.id_token.0, both.audience];
    assert_eq!(told, ["id", "$TS_ID_TOKEN", "$TS_AUDIENCE"]);
}

#[test]
fn a_workload_has_a_client_and_one_token() {
    let refused = |id, token, audience| workload(id, token, audience).client().unwrap_err();
    assert!(matches!(refused("id", "", ""), AuthKeyError::NoIdToken));
    assert!(matches!(refused("", "token", ""), AuthKeyError::NoClientId));
    assert!(matches!(refused("", "", "audience"), AuthKeyError::NoClientId));
    assert!(matches!(refused("id", "token", "audience"), AuthKeyError::TwoTokens));
    assert!(matches!(refused("", "token", "audience"), AuthKeyError::TwoTokens));
    assert!(matches!(refused("id", "", "audience"), AuthKeyError::Audience));
}

#[test]
fn keys_of_a_workload_are_ephemeral_unless_it_writes_options() {
    let client = |id: &str| workload(id, "token", "").client().map(|client| client.expect("one"));
    let plain = client("id").expect("a client");
    let credential = Credential::IdToken("id".to_owned(), SecretText("token".to_owned()));
    assert_eq!((plain.credential, plain.is_ephemeral), (credential, true));
    let all = client("id?preauthorized=true").expect("a client");
    assert_eq!((all.is_ephemeral, all.is_preauthorized), (false, true));
    assert!(client("id?ephemeral=true").expect("a client").is_ephemeral);
    let elsewhere =
        client("id?baseURL=https%3A%2F%2Fapi.example").expect_err("none of its options");
    assert!(matches!(elsewhere, AuthKeyError::Option(_)));
}

#[test]
fn percent_signs_come_back() {
    for text in ["", "tskey-client-1", "a b&c=d%20+ü\u{0}"] {
        assert_eq!(percent_decoded(&percent_encoded(text)).as_deref(), Some(text));
    }
}

/// A server that makes one key, for those who do as it expects.
async fn serve(listener: TcpListener) {
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
        // Who hangs up ends it.
        http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await.ok();
    }
}

async fn answer(request: Request<Incoming>) -> Response<String> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let authorization = head.headers.get("authorization").map(|value| value.as_bytes().to_vec());
    match (head.uri.path(), authorization) {
        ("/api/v2/oauth/token", None) => {
            let expected = "grant_type=client_credentials&client_id=mesh-node&client_secret=tskey-client-1-%21";
            assert_eq!(body, expected);
            Response::new(r#"{"access_token":"token","token_type":"Bearer"}"#.to_owned())
        }
        ("/api/v2/oauth/token-exchange", None) => {
            assert_eq!(body, "client_id=id%2F1&jwt=eyJ%2Ea%2Eb");
            Response::new(r#"{"access_token":"token","token_type":"Bearer"}"#.to_owned())
        }
        ("/api/v2/tailnet/-/keys", Some(token)) if token == b"Bearer token" => {
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let create = &body["capabilities"]["devices"]["create"];
            if create["tags"] != json!(["tag:x"]) {
                let refused = Response::builder().status(403).body("no such tag\n".to_owned());
                return refused.expect("an answer");
            }
            assert_eq!((&create["ephemeral"], &create["reusable"]), (&json!(true), &json!(false)));
            Response::new(r#"{"id":"1","key":"tskey-auth-made"}"#.to_owned())
        }
        other => panic!("{other:?}"),
    }
}

async fn make(tags: &[&str]) -> Result<SecretText, AuthKeyError> {
    make_with(client("tskey-client-1-!"), tags).await
}

async fn make_with(client: Client, tags: &[&str]) -> Result<SecretText, AuthKeyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve(listener)));
    let tags: Vec<_> = tags.iter().map(|&tag| tag.to_owned()).collect();
    let (url, roots) = (url.parse().expect("a URL"), RootCertStore::empty());
    let made = client.make_key(&tags, &url, &roots).await;
    drop(server);
    made
}

#[tokio::test]
async fn a_secret_makes_a_key_for_tagged_nodes() {
    assert_eq!(make(&["tag:x"]).await.expect("a key").0, "tskey-auth-made");
    assert!(matches!(make(&[]).await, Err(AuthKeyError::NoTags)));
}

#[tokio::test]
async fn an_id_token_makes_a_key_for_tagged_nodes() {
    let client = || workload("id/1", "eyJ.a.b", "").client().expect("no error").expect("a client");
    assert_eq!(make_with(client(), &["tag:x"]).await.expect("a key").0, "tskey-auth-made");
    assert!(matches!(make_with(client(), &[]).await, Err(AuthKeyError::NoTags)));
}

#[tokio::test]
async fn a_refusal_is_repeated() {
    let refused = make(&["tag:y"]).await.expect_err("refused");
    assert!(refused.to_string().contains(r#"403 Forbidden: "no such tag""#), "{refused}");
}
