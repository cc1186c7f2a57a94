//! Connections whose other end stops reading.
//!
//! What such a client may hold is bounded where it is held: HTTP/2 asks a body for no more, [`NoiseStream`]
//! takes no more, and [`bound_socket`] limits what the system keeps unsent. All of it together stays below
//! 256 KiB; the client is dropped when [`Impatient`] has waited long enough.
//!
//! [`NoiseStream`]: mesh_noise_io::NoiseStream

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};

/// Bytes that may lie unsent in a socket before it takes no more. What is on its way is not limited by it, so
/// that a fast reader far away loses nothing.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Connections that may wait to be accepted: after a restart everybody comes at once, and whoever finds no
/// room tries again only after a second. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Prepares a listener for many that come at once. The sockets that it accepts inherit the bound of
/// what they hold unsent, and give up a peer that acknowledges nothing for `timeout`.
pub(crate) fn bound_socket(listener: &TcpListener, timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.listen(BACKLOG)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(timeout))
}

/// A stream that breaks with [`TimedOut`](io::ErrorKind::TimedOut) once nothing of what it is to write has been
/// taken for a time.
#[derive(Debug)]
pub(crate) struct Impatient<IO> {
    io: IO,
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<IO> Impatient<IO> {
    /// Gives up a write that waits for `patience`.
    pub(crate) fn new(io: IO, patience: Duration) -> Self {
        Self { io, patience, waiting: None }
    }

    /// What is told of a write that is `polled`.
    fn judge<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(waiting.as_mut().poll(cx));
        tracing::debug!("a connection is dropped: its other end does not read");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Impatient<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Impatient<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.judge(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.judge(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.judge(polled, cx)
    }
}

#[cfg(test)]
mod tests;
