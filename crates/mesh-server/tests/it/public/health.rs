use crate::server::TestServer;

#[tokio::test]
async fn health_is_that_of_the_database() {
    let server = TestServer::start().await;
    server.expect_alarm("the database does not answer");
    for (is_down, status, word) in [(false, 200, "pass"), (true, 500, "fail"), (false, 200, "pass")]
    {
        server.database.set_down(is_down);
        let answer = server.get("/health").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-type"), "application/health+json");
        assert_eq!(answer.json()["status"], word);
    }
}
