//! As much of HTTP/1.1 as asking a relay takes: one question, and the head of its answer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// What the answer begins with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The value of the one header that was asked for.
    pub(super) header: Option<String>,
}

/// Asks for a path, with more lines in the head if there are any, and reads the head of the answer with this
/// header.
pub(super) async fn get<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    host: &str,
    path: &str,
    lines: &str,
    header: &str,
) -> io::Result<Head> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n");
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let mut input = Vec::new();
    loop {
        if let Some(head) = parse(&input, header)? {
            return Ok(head);
        }
        let room = HEAD_BYTES_MAX - input.len();
        if io.take(room as u64).read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(input: &[u8], header: &str) -> io::Result<Option<Head>> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut lines);
    if head.parse(input).map_err(io::Error::other)?.is_partial() {
        return Ok(None);
    }
    let found = head.headers.iter().find(|line| line.name.eq_ignore_ascii_case(header));
    let header = found.map(|line| String::from_utf8_lossy(line.value).into_owned());
    Ok(Some(Head { status: head.code.unwrap_or_default(), header }))
}
