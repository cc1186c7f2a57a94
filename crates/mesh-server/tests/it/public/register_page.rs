use mesh_state::Command;

use crate::server::{TestServer, auth_id, register_request};

/// The path of the page of a login that waits.
async fn login(server: &TestServer, hostname: &str) -> String {
    let mut request = register_request(1, "");
    hostname.clone_into(&mut request.hostinfo.as_mut().unwrap().hostname);
    let response = server.client(1).await.register(&request).await.unwrap();
    let url = response.auth_url;
    assert!(url.starts_with(&format!("http://127.0.0.1:{}/register/", server.address.port())));
    format!("/register/{}", auth_id(&url))
}

#[tokio::test]
async fn the_page_of_a_login_tells_what_to_do() {
    let server = TestServer::start().await;
    let path = login(&server, "laptop").await;
    let answer = server.get(&path).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    assert!(answer.header("content-type").starts_with("text/html"));
    let id = path.rsplit('/').next().unwrap();
    for text in ["laptop", "linux", &format!("meshcontrol auth register --auth-id {id}")] {
        assert!(answer.body.contains(text), "no {text} in {}", answer.body);
    }
}

#[tokio::test]
async fn looking_at_it_changes_nothing() {
    let server = TestServer::start().await;
    let path = login(&server, "laptop").await;
    let before = server.store.snapshot();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        let status = if matches!(method, "GET" | "HEAD") { 200 } else { 405 };
        let mut stream = server.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let answer = String::from_utf8(crate::http::rest(&mut stream).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method}: {answer}");
    }
    assert_eq!(server.store.snapshot().epoch, before.epoch);
    assert!(server.node(1).is_none());
}

#[tokio::test]
async fn a_hostile_hostname_is_shown_as_text() {
    let server = TestServer::start().await;
    let hostname = "<script>alert(1)</script><img src=x onerror='alert(2)'>&amp;";
    let path = login(&server, hostname).await;
    let page = server.get(&path).await.body;
    assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;\
                   &lt;img src=x onerror=&#39;alert(2)&#39;&gt;&amp;amp;";
    assert!(page.contains(escaped), "{page}");
}

#[tokio::test]
async fn a_decided_login_is_not_shown() {
    let server = TestServer::start().await;
    let path = login(&server, "laptop").await;
    let user = server.user().await.id;
    server.submit(Command::ApproveLogin { auth_id: auth_id(&path), user }).await;
    let answer = server.get(&path).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("laptop") && answer.body.contains("approved or rejected"));
}

#[tokio::test]
async fn an_unknown_login_is_not_found_and_not_repeated() {
    let server = TestServer::start().await;
    for id in ["x", "%3Cscript%3E", "%00", "..%2f..%2fkey", &"a".repeat(5000)] {
        let answer = server.get(&format!("/register/{id}")).await;
        assert_eq!(answer.status, 404, "{id}");
        assert!(!answer.body.contains("<script>") && !answer.body.contains("aaaa"));
    }
}
