//! A connection that a node has dialled.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection: through the tailnet, or over the machine's own network for addresses that are not in it.
#[derive(Debug)]
pub enum Stream {
    /// To a peer, or to what a peer routes.
    Tailnet(mesh_stack::TcpStream),
    /// To anywhere else.
    Machine(tokio::net::TcpStream),
}

impl Stream {
    /// The address of the near end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tailnet(stream) => Ok(stream.local_addr()),
            Self::Machine(stream) => stream.local_addr(),
        }
    }

    /// The address of the far end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tailnet(stream) => Ok(stream.peer_addr()),
            Self::Machine(stream) => stream.peer_addr(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tailnet(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Machine(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tailnet(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Machine(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tailnet(stream) => Pin::new(stream).poll_flush(cx),
            Self::Machine(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tailnet(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Machine(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
