//! A TCP connection in the hands of a program.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::ConnectionId;
use crate::stack::Shared;

/// A TCP connection.
///
/// It behaves as the operating system's: a write waits while the buffer is full, and what it took leaves as
/// soon as it can (no Nagle delay), also without a flush; shutdown sends a FIN behind it, and reads go on;
/// dropping the stream closes it in the background, which takes at most a minute. A silent connection asks
/// every half hour whether its peer still is.
///
/// One task may read while another one writes.
#[derive(Debug)]
pub struct TcpStream {
    shared: Arc<Shared>,
    id: ConnectionId,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TcpStream {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        Self { shared, id, local, peer }
    }

    /// The address at this end; for a connection to a routed network the one that the peer meant.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address at the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection at once by a reset: what the peer has not got is lost, and it hears of a failure, where
    /// dropping the stream would end in good order.
    pub fn abort(self) {
        let (mut inner, now) = self.shared.lock();
        inner.abort(self.id, now);
    }

    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().0.poll_connected(self.id, cx.waker())
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (mut inner, now) = self.shared.lock();
        inner.poll_read(self.id, buffer, cx.waker(), now)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (mut inner, now) = self.shared.lock();
        inner.poll_write(self.id, bytes, cx.waker(), now)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut inner, now) = self.shared.lock();
        inner.shut_down(self.id, now);
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let (mut inner, now) = self.shared.lock();
        inner.let_go(self.id, now);
    }
}
