//! `/policy`.

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use mesh_state::Command;
use serde_json::{Value, json};

use super::super::{Answer, Server};

const FAILING: &str =
    r#"{"acls": [], "tests": [{"src": "100.64.0.1", "accept": ["100.64.0.2:80"]}]}"#;

fn body(policy: &str) -> String {
    json!({ "policy": policy }).to_string()
}

async fn put(server: &Server, policy: &str) -> Value {
    let answer = server.ask(Method::PUT, "/policy", &body(policy)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.json);
    answer.json
}

async fn put_if(server: &Server, tag: &str, policy: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::IF_MATCH, tag.parse().unwrap());
    server.ask_with(headers, Method::PUT, "/policy", &body(policy)).await
}

#[tokio::test]
async fn a_tailnet_begins_without_a_policy() {
    let server = Server::start();
    let answer = server.get("/policy").await;
    assert_eq!(answer["policy"], "");
    assert_eq!(answer["updatedAt"], Value::Null);
    assert_eq!((&answer["version"], &answer["mode"]), (&json!("0"), &json!("database")));
    assert_eq!(server.get("/policy/versions").await, json!({ "versions": [] }));
}

#[tokio::test]
async fn a_policy_is_shown_as_it_was_written_with_who_wrote_it() {
    let server = Server::start();
    let text = "// who may what\n{\"acls\": [],}\r\n";
    let set = put(&server, text).await;
    assert_eq!(set["policy"], text);
    assert_eq!(set["updatedAt"], "2026-01-01T00:00:00Z");
    assert_eq!((&set["updatedBy"], &set["version"]), (&json!("cli"), &json!("1")));
    assert_eq!(server.get("/policy").await, set);
}

#[tokio::test]
async fn a_policy_is_taken_as_it_is_and_not_repeated_to_who_has_it() {
    let server = Server::start();
    let text = "// \"who\" may what\n{\"acls\": [],}";
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, "application/hujson; charset=utf-8".parse().unwrap());
    let set = server.ask_with(headers.clone(), Method::PUT, "/policy", text).await;
    assert_eq!(set.json["policy"], text);
    headers.insert("prefer", "wait=5, return=minimal".parse().unwrap());
    let set = server.ask_with(headers.clone(), Method::PUT, "/policy", text).await;
    assert_eq!((&set.json["policy"], &set.json["version"]), (&json!(""), &json!("1")));
    assert_eq!(server.get("/policy").await["policy"], text);
    for wrong in ["", "{"] {
        let refused = server.ask_with(headers.clone(), Method::PUT, "/policy", wrong).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{:#}", refused.json);
    }
}

#[tokio::test]
async fn an_api_key_is_named_as_the_author() {
    let server = Server::start();
    let key = server.post("/apikey", "").await;
    let key = key["apiKey"].as_str().unwrap().to_owned();
    let request = Request::put("/api/v1/policy");
    let authorization = format!("Bearer {key}");
    let answer =
        server.ask_publicly_for(request, &body("{}"), "192.0.2.1", Some(&authorization)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let author = answer.json["updatedBy"].as_str().unwrap();
    assert!(author.len() > 4 && key.starts_with(&format!("tskey-api-{author}-")), "{author}");
}

#[tokio::test]
async fn versions_are_kept_with_their_texts() {
    let server = Server::start();
    for text in ["{}", "{} // 2", "{} // 2"] {
        put(&server, text).await;
    }
    let versions = server.get("/policy/versions").await;
    let versions = versions["versions"].as_array().unwrap();
    let heads: Vec<_> = versions.iter().map(|head| (&head["id"], &head["bytes"])).collect();
    assert_eq!(heads, [(&json!("1"), &json!(2)), (&json!("2"), &json!(7))]);
    assert_eq!(server.get("/policy/versions/1").await["policy"], "{}");
    for unknown in ["0", "3", "x", "01"] {
        server.refused(Method::GET, &format!("/policy/versions/{unknown}"), "", 404).await;
    }
}

#[tokio::test]
async fn a_policy_is_replaced_only_by_who_has_read_it() {
    let server = Server::start();
    let none = server.ask(Method::GET, "/policy", "").await.etag.unwrap();
    let first = put_if(&server, &none, "{}").await;
    assert_eq!(first.status, StatusCode::OK);
    let lost = put_if(&server, &none, r#"{"acls": []}"#).await;
    assert_eq!(lost.status, StatusCode::PRECONDITION_FAILED);
    assert!(lost.json["detail"].as_str().unwrap().contains("read it again"));
    let tag = first.etag.unwrap();
    assert_eq!(tag, format!("\"{}\"", first.json["digest"].as_str().unwrap()));
    assert_eq!(put_if(&server, &tag, r#"{"acls": []}"#).await.status, StatusCode::OK);
    assert_eq!(put_if(&server, "*", "{}").await.status, StatusCode::OK);
    let several = put_if(&server, "\"a\", \"b\"", "{}").await;
    assert_eq!(several.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn all_problems_are_told_with_their_places_and_nothing_changes() {
    let server = Server::start();
    let text = "{\"acls\": [\n  {\"action\": \"accept\", \"src\": [\"group:a\"], \"dst\": [\"tag:b:*\"]},\n]}";
    for (method, path) in [(Method::PUT, "/policy"), (Method::POST, "/policy/check")] {
        let answer = server.ask(method, path, &body(text)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let errors = answer.json["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 2, "{:#}", answer.json);
        let detail = answer.json["detail"].as_str().unwrap();
        for error in errors {
            assert!(error["location"].as_str().unwrap().starts_with("body.policy:2:"), "{error}");
            assert!(detail.contains(error["message"].as_str().unwrap()), "{detail}");
        }
    }
    assert_eq!(server.get("/policy").await["version"], "0");
}

#[tokio::test]
async fn an_empty_policy_is_no_way_to_let_everybody_in() {
    let server = Server::start();
    for empty in ["", "{}", r#"{"policy": null}"#, r#"{"policy": " \n"}"#] {
        let detail = server.refused(Method::PUT, "/policy", empty, 400).await;
        assert!(detail.contains("the policy is empty"), "{detail}");
    }
    server.refused(Method::PUT, "/policy", r#"{"policy": 7}"#, 422).await;
}

#[tokio::test]
async fn a_policy_that_fails_its_tests_is_refused() {
    let server = Server::start();
    for (method, path) in [(Method::PUT, "/policy"), (Method::POST, "/policy/check")] {
        let detail = server.refused(method, path, &body(FAILING), 400).await;
        assert!(detail.contains("test(s) failed") && detail.contains("tests[0]"), "{detail}");
    }
    assert_eq!(server.get("/policy").await["version"], "0");
}

#[tokio::test]
async fn checking_saves_nothing() {
    let server = Server::start();
    assert_eq!(server.post("/policy/check", &body(r#"{"acls": []}"#)).await, json!({}));
    assert_eq!(server.get("/policy").await["version"], "0");
}

#[tokio::test]
async fn tests_are_run_on_the_policy_in_force_or_on_another() {
    let server = Server::start();
    let answer = server.post("/policy/test", "").await;
    assert_eq!((&answer["passed"], &answer["tests"]), (&json!(true), &json!([])));
    assert_eq!(answer["text"], "the policy has no tests");
    let answer = server.post("/policy/test", &body(FAILING)).await;
    assert_eq!((&answer["passed"], &answer["tests"][0]["line"]), (&json!(false), &json!(1)));
    assert_eq!(answer["tests"][0]["checks"][0]["passed"], false);
}

/// A tailnet of two nodes of alice's that see each other, and a policy in which only the first reaches the second.
async fn with_two_nodes() -> (Server, &'static str) {
    let server = Server::start();
    server.with_user("alice").await;
    for hostname in ["laptop", "desktop"] {
        let node = server.with_node(hostname, "alice").await;
        let connect = Command::Connect {
            node: node.id,
            node_key: node.node_key,
            disco_key: mesh_keys::DiscoPublic::from_bytes([7; 32]),
        };
        server.store().submit(connect).await.unwrap();
    }
    let policy = r#"{
        "hosts": {"printer": "100.64.0.2"},
        "acls": [{"action": "accept", "src": ["100.64.0.1"], "dst": ["printer:80"]}],
    }"#;
    (server, policy)
}

#[tokio::test]
async fn a_policy_is_explained_for_nodes_and_selectors() {
    let (server, policy) = with_two_nodes().await;
    let check = async |src: &str, dst: &str, proto: &str, policy: &str, verdict: Value| {
        let ask = json!({ "src": src, "dst": dst, "proto": proto, "policy": policy });
        let answer = server.post("/policy/explain", &ask.to_string()).await;
        assert_eq!(answer["verdict"], verdict, "{src} {dst} {proto}: {answer:#}");
        assert!(answer["text"].as_str().unwrap().len() > 10);
    };
    check("laptop", "desktop:80", "", "", json!("allowed")).await;
    check("laptop", "desktop:80", "", policy, json!("allowed")).await;
    check("1", "printer:80", "tcp", policy, json!("allowed")).await;
    check("laptop", "desktop:81", "", policy, json!("refused")).await;
    check("desktop", "laptop:80", "", policy, json!("refused")).await;
    check("alice@", "[100.64.0.2]:80", "6", policy, json!({ "partly": { "pairs": 1, "of": 2 } }))
        .await;
    for (wrong, what) in [
        (r#"{"src": "laptop", "dst": "nobody"}"#, "nobody"),
        (r#"{"src": "group:x", "dst": "laptop"}"#, "group:x"),
        (r#"{"src": "laptop", "dst": "laptop", "proto": "tpc"}"#, "tpc"),
    ] {
        let detail = server.refused(Method::POST, "/policy/explain", wrong, 422).await;
        assert!(detail.contains(what), "{detail}");
    }
}

#[tokio::test]
async fn what_a_policy_would_change_is_told_and_not_done() {
    let (server, policy) = with_two_nodes().await;
    let answer = server.post("/policy/diff", &body(policy)).await;
    assert_eq!(answer["nodes"], 2);
    assert!(answer["access"].as_array().unwrap().iter().any(|change| change["effect"] == "lost"));
    assert!(!answer["text"].as_str().unwrap().is_empty());
    let approving = r#"{"autoApprovers": {"routes": {"10.0.0.0/8": ["alice@"]}}}"#;
    let answer = server.post("/policy/diff", &body(approving)).await;
    assert_eq!(answer["routes"][0]["what"], json!(["10.0.0.0/8"]));
    server.refused(Method::POST, "/policy/diff", &body("{"), 400).await;
    assert_eq!(server.get("/policy").await["version"], "0");
}

#[tokio::test]
async fn a_policy_in_a_file_is_not_set_here() {
    let server = Server::start().with_policy_file(Some("line 3 makes no sense"));
    let detail = server.refused(Method::PUT, "/policy", &body("{}"), 400).await;
    assert!(detail.contains("/etc/acl.hujson"), "{detail}");
    let answer = server.get("/policy").await;
    assert_eq!(
        (&answer["mode"], &answer["problem"]),
        (&json!("file"), &json!("line 3 makes no sense"))
    );
    assert_eq!(server.post("/policy/check", &body("{}")).await, json!({}));
}

#[tokio::test]
async fn a_policy_may_be_longer_than_other_bodies() {
    let server = Server::start();
    let text = format!("{{}} // {}", "\\\"".repeat(1 << 20));
    assert_eq!(put(&server, &text).await["policy"], text);
    let too_long = format!("{{}} // {}", "x".repeat(4 << 20));
    let detail = server.refused(Method::PUT, "/policy", &body(&too_long), 400).await;
    assert!(detail.contains("longer than 4 MiB"), "{detail}");
    let far_too_long = " ".repeat(9 << 20);
    server.refused(Method::PUT, "/policy", &body(&far_too_long), 413).await;
}

#[tokio::test]
async fn a_database_that_is_away_is_no_reason_to_change_anything() {
    let server = Server::start();
    server.take_database_away();
    server.refused(Method::PUT, "/policy", &body(r#"{"acls": []}"#), 503).await;
    assert_eq!(server.get("/policy").await["version"], "0");
}

#[tokio::test]
async fn admins_give_tags_that_the_policy_defines() {
    let server = Server::start();
    server.with_user("alice").await;
    server.with_node("laptop", "alice").await;
    put(&server, r#"{"tagOwners": {"tag:web": []}}"#).await;
    let refused = r#"{"tags": ["tag:wbe"]}"#;
    let detail = server.refused(Method::POST, "/node/1/tags", refused, 400).await;
    assert!(detail.contains("tag:wbe is not defined in tagOwners"), "{detail}");
    server.post("/node/1/tags", r#"{"tags": ["tag:web"]}"#).await;
}
