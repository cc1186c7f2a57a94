//! HTTP/1.1 by hand, so that a server can do what no server would.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::within;

/// A server that answers when the test does.
pub(crate) struct Server(TcpListener);

/// A request, and the connection it came on.
pub(crate) struct Request {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) stream: TcpStream,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next request, on a connection of its own.
    pub(crate) async fn next(&self) -> Request {
        let (stream, _) = within(self.0.accept()).await.unwrap();
        Request::read(stream).await
    }
}

impl Request {
    async fn read(mut stream: TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        within(stream.read_exact(&mut body)).await.unwrap();
        Self { head, body: String::from_utf8(body).unwrap(), stream }
    }

    /// Answers with a body that ends with the connection.
    pub(crate) async fn answer(mut self, status: u16, body: &str) -> TcpStream {
        let text = format!("HTTP/1.1 {status} -\r\nconnection: close\r\n\r\n{body}");
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream
    }
}
