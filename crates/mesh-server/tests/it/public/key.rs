use crate::server::TestServer;

#[tokio::test]
async fn both_keys_are_told() {
    let server = TestServer::start().await;
    let answer = server.get("/key?v=145").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let json = answer.json();
    assert_eq!(json["publicKey"], server.noise_key.to_string());
    assert_eq!(json["legacyPublicKey"], format!("mkey:{}", "0".repeat(64)));
}

#[tokio::test]
async fn a_client_that_speaks_no_noise_is_told_to_update() {
    let server = TestServer::start().await;
    for target in ["/key", "/key?v=", "/key?v=38", "/key?v=x", "/key?v=-1", "/key?v=99999999999"] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.body.contains("update the client"), "{}", answer.body);
    }
    assert_eq!(server.get("/key?v=39").await.status, 200);
}
