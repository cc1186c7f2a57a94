//! What a connection is made of below its frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite};

use crate::wide::Wide;

/// A stream whose bytes can be looked at where they are, without a copy for whoever reads them. Reading it as a stream
/// is charged for; who is handed what has come pays for it.
pub(crate) trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Hands on what has come, chunk by chunk, about as much as one read of the socket brings. Returns how many bytes that were
    /// on their way, which may carry nothing; none at the end of the stream.
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>>;

    /// How many bytes the socket has taken so far: while they grow, the client takes something in.
    fn sent_bytes(&self) -> u64;
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for Wide<IO> {
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        let chunk = ready!(Pin::new(&mut *self).poll_fill_buf(cx))?;
        let length = chunk.len();
        take(chunk)?;
        if length > 0 {
            Pin::new(self).consume(length);
        }
        Poll::Ready(Ok(length))
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}
