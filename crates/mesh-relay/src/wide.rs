//! A socket that is read in large pieces, whatever small ones its reader asks for. The buffer is lent by the
//! thread and goes back as soon as it is empty, so that a connection that waits holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::workers::charge;

/// Bytes that are read at once: some forty packets.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// The buffer for the next reader of this thread.
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

/// A socket, with what was read of it and not asked for yet.
#[derive(Debug)]
pub(crate) struct Wide<IO> {
    io: IO,
    rest: BytesMut,
    /// Bytes that were written so far.
    pub(crate) sent_bytes: u64,
}

impl<IO> Wide<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, rest: BytesMut::new(), sent_bytes: 0 }
    }
}

impl<IO: AsyncRead + Unpin> AsyncBufRead for Wide<IO> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { io, rest, .. } = self.get_mut();
        if rest.is_empty() {
            let mut buffer = SPARE.take();
            buffer.clear();
            buffer.reserve(READ_BYTES);
            let read = poll_read_buf(Pin::new(io), cx, &mut buffer);
            if buffer.is_empty() {
                SPARE.set(buffer);
            } else {
                *rest = buffer;
            }
            ready!(read)?;
        }
        Poll::Ready(Ok(rest))
    }

    fn consume(self: Pin<&mut Self>, bytes: usize) {
        let rest = &mut self.get_mut().rest;
        rest.advance(bytes);
        if rest.is_empty() {
            SPARE.set(std::mem::take(rest));
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wide<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = bytes.len().min(into.remaining());
        into.put_slice(&bytes[..length]);
        charge(length as u64);
        if length > 0 {
            self.consume(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wide<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.sent_bytes += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_order_however_few_are_asked_for() {
        let (mut from, to) = duplex(1 << 20);
        let sent: Vec<u8> = (0..200_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
        from.write_all(&sent).await.unwrap();
        drop(from);
        let (mut to, mut came) = (Wide::new(to), Vec::new());
        let mut piece = [0; 4097];
        loop {
            match to.read(&mut piece).await.unwrap() {
                0 => break,
                length => came.extend_from_slice(&piece[..length]),
            }
        }
        assert!(came == sent);
    }

    #[tokio::test]
    async fn who_waits_holds_no_buffer() {
        let (mut from, to) = duplex(100);
        let mut to = Wide::new(to);
        from.write_all(b"abc").await.unwrap();
        assert_eq!(to.read_u8().await.unwrap(), b'a');
        assert!(to.rest.capacity() >= 2);
        assert_eq!(to.read_u16().await.unwrap(), 0x6263);
        assert_eq!(to.rest.capacity(), 0);
    }
}
