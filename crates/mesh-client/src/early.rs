//! The stream that HTTP/2 runs over: the channel without the early payload.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use mesh_noise::{Early, parse_early_payload};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Leaves out the early payload with which the inner stream may begin; its challenge is not used by anybody.
///
/// It is judged while reading and not before HTTP/2 begins, for a server may wait for our first bytes.
#[derive(Debug)]
pub(crate) struct WithoutEarlyPayload<S> {
    inner: S,
    /// The beginning of the stream; after the judgement what is left of it.
    beginning: BytesMut,
    judged: bool,
    /// Set from outside to read nothing any more.
    deaf: Arc<AtomicBool>,
}

impl<S> WithoutEarlyPayload<S> {
    pub(crate) fn new(inner: S, deaf: Arc<AtomicBool>) -> Self {
        Self { inner, beginning: BytesMut::new(), judged: false, deaf }
    }
}

impl<S: AsyncRead + Unpin> WithoutEarlyPayload<S> {
    /// Reads until it is clear what the stream begins with.
    fn poll_judge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.judged {
            match parse_early_payload(&self.beginning).map_err(invalid_data)? {
                Early::Present { length, .. } => {
                    self.beginning.advance(length);
                    self.judged = true;
                }
                Early::Absent => self.judged = true,
                Early::Incomplete => {
                    let read =
                        ready!(poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.beginning))?;
                    // What follows then reads the end by itself.
                    self.judged = read == 0;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutEarlyPayload<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.deaf.load(Ordering::Relaxed) {
            // For good, so nobody need be woken.
            return Poll::Pending;
        }
        ready!(self.poll_judge(cx))?;
        if self.beginning.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.beginning.len().min(buf.remaining());
        buf.put_slice(&self.beginning.split_to(length));
        if self.beginning.is_empty() {
            self.beginning = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutEarlyPayload<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn invalid_data(error: mesh_noise::EarlyError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
