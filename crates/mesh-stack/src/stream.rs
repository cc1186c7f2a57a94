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
///
/// ```
/// # use mesh_stack::{Config, PacketBatch, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (stack, mut outgoing) = Stack::new(&Config::default())?;
/// # stack.set_addresses(&[[100, 64, 0, 1].into()]);
/// # let back = stack.clone();
/// # tokio::spawn(async move {
/// #     let mut batch = PacketBatch::new();
/// #     loop {
/// #         outgoing.next_batch(&mut batch).await;
/// #         back.receive(batch.packets());
/// #     }
/// # });
/// use mesh_stack::Network;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// let mut listener = stack.listen_tcp(Network::Tcp, None, 80)?;
/// let connect = stack.connect_tcp(None, "100.64.0.1:80".parse()?);
/// let (accepted, called) = tokio::join!(listener.accept(), connect);
/// let (mut server, mut client) = (accepted?.0, called?);
/// assert_eq!(client.peer_addr(), server.local_addr());
///
/// client.write_all(b"hello").await?;
/// client.shutdown().await?;
/// let mut heard = String::new();
/// server.read_to_string(&mut heard).await?;
/// assert_eq!(heard, "hello");
/// # Ok(())
/// # }
/// ```
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
    ///
    /// [Example](Self)
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address at the other end.
    ///
    /// [Example](Self)
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection at once by a reset: what the peer has not got is lost, and it hears of a failure, where
    /// dropping the stream would end in good order.
    ///
    /// ```
    /// # use mesh_stack::{Config, PacketBatch, Stack};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (stack, mut outgoing) = Stack::new(&Config::default())?;
    /// # stack.set_addresses(&[[100, 64, 0, 1].into()]);
    /// # let back = stack.clone();
    /// # tokio::spawn(async move {
    /// #     let mut batch = PacketBatch::new();
    /// #     loop {
    /// #         outgoing.next_batch(&mut batch).await;
    /// #         back.receive(batch.packets());
    /// #     }
    /// # });
    /// # use mesh_stack::Network;
    /// # use tokio::io::AsyncReadExt as _;
    /// # let mut listener = stack.listen_tcp(Network::Tcp, None, 80)?;
    /// # let connect = stack.connect_tcp(None, "100.64.0.1:80".parse()?);
    /// # let (accepted, called) = tokio::join!(listener.accept(), connect);
    /// # let (server, mut client) = (accepted?.0, called?);
    /// server.abort();
    /// let failure = client.read_u8().await.expect_err("a reset");
    /// assert_eq!(failure.kind(), std::io::ErrorKind::ConnectionReset);
    /// # Ok(())
    /// # }
    /// ```
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
