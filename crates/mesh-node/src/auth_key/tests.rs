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
    assert_eq!(plain.secret.0, "tskey-client-1-2");
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve(listener)));
    let tags: Vec<_> = tags.iter().map(|&tag| tag.to_owned()).collect();
    let client = client("tskey-client-1-!");
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
async fn a_refusal_is_repeated() {
    let refused = make(&["tag:y"]).await.expect_err("refused");
    assert!(refused.to_string().contains(r#"403 Forbidden: "no such tag""#), "{refused}");
}
