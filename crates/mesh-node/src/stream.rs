//! A connection that a node has dialled.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection: through the tailnet, or over the machine's own network for addresses that are not in it.
///
/// ```
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
/// # let node = node.build().await?;
/// use mesh_node::Stream;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
/// # let mut listener = node.listen(80)?;
/// # let served = async { Ok::<_, std::io::Error>(listener.accept().await?.0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?) };
///
/// let fetched = async {
///     let mut stream = node.dial("web:80").await?;
///     assert!(matches!(stream, Stream::Tailnet(_)), "calls to elsewhere are Stream::Machine");
///     stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer).await?;
///     Ok::<_, Box<dyn std::error::Error>>(answer)
/// };
/// # let (_, answer) = tokio::join!(served, fetched);
/// # assert!(answer?.starts_with("HTTP/1.1 200"));
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub enum Stream {
    /// To a peer, or to what a peer routes.
    Tailnet(mesh_stack::TcpStream),
    /// To anywhere else.
    Machine(tokio::net::TcpStream),
}

impl Stream {
    /// The address of the near end.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// # let mut listener = node.listen(80)?;
    /// # let (accepted, stream) = tokio::join!(listener.accept(), node.dial("web:80"));
    /// # let (accepted, stream) = (accepted?.0, stream?);
    /// assert!(node.ips().contains(&stream.local_addr()?.ip()));
    /// # drop(accepted);
    /// # Ok(()) });
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tailnet(stream) => Ok(stream.local_addr()),
            Self::Machine(stream) => stream.local_addr(),
        }
    }

    /// The address of the far end.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// # let mut listener = node.listen(80)?;
    /// # let (accepted, stream) = tokio::join!(listener.accept(), node.dial("web:80"));
    /// # let (accepted, stream) = (accepted?.0, stream?);
    /// assert_eq!(stream.peer_addr()?.port(), 80);
    /// # drop(accepted);
    /// # Ok(()) });
    /// ```
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
