//! HTTP/1.1 by hand, for requests that no client would make.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::server::within;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let is_named = |line: &&str| {
            line.split_once(':').is_some_and(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        let line = self.head.lines().skip(1).find(is_named);
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }

    /// The body, read as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends a request as it is and reads the answer: its head, and as much body as that announces.
pub(crate) async fn ask<IO>(io: &mut IO, request: &str) -> Answer
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(request.as_bytes()).await.unwrap();
    within(answer(io)).await
}

/// Reads an answer.
pub(crate) async fn answer(io: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // What follows the head may belong to somebody else.
        head.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    io.read_exact(&mut body).await.unwrap();
    answer.body = String::from_utf8(body).unwrap();
    answer
}

/// Reads until the server has closed the connection, and returns what came until then.
pub(crate) async fn rest(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset closes as well.
    let _ = within(io.read_to_end(&mut rest)).await;
    rest
}
