//! Listening for datagrams, in the hands of a program.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::FlowId;
use crate::listen::ListenKey;
use crate::packet::Flow;
use crate::stack::Shared;

/// Takes flows of datagrams from peers; made by [`Stack::listen_udp`](crate::Stack::listen_udp).
///
/// A flow that nobody accepts within a second is forgotten. At most 128 wait; what would begin another one is ignored.
/// Dropping the listener ends it and what waits; accepted flows go on.
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
///
/// let mut listener = stack.listen_udp(Network::Udp, None, 53)?;
/// let client = stack.bind_udp("100.64.0.1:0".parse()?)?;
/// client.send_to(b"who?", "100.64.0.1:53".parse()?).await?;
/// let (stream, from) = listener.accept().await?;
/// assert_eq!((from, stream.local_addr().port()), (client.local_addr(), listener.port()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpListener {
    shared: Arc<Shared>,
    key: ListenKey,
}

impl UdpListener {
    pub(crate) fn new(shared: Arc<Shared>, key: ListenKey) -> Self {
        Self { shared, key }
    }

    /// The port.
    ///
    /// [Example](Self)
    pub fn port(&self) -> u16 {
        self.key.port()
    }

    /// Waits for a source that has not been heard of, and says which one it is. Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn accept(&mut self) -> io::Result<(UdpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Takes a flow, or wakes the task when there is one; see [`accept`](Self::accept).
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(UdpStream, SocketAddr)>> {
        let (mut inner, now) = self.shared.lock();
        inner.check_open()?;
        inner.udp.flows.poll_accept(self.key, cx.waker(), now).map(|(id, flow)| {
            let stream = UdpStream { shared: Arc::clone(&self.shared), id, flow };
            Ok((stream, flow.remote))
        })
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.shared.lock().0.udp.flows.close_listener(self.key);
    }
}

/// The datagrams between one peer's socket and one address here.
///
/// It ends when nothing has passed for two minutes; what the peer sends after that begins another one, as after the
/// stream is dropped. 64 KiB may wait to be received, 64 bytes per datagram included; after that the oldest are
/// dropped. Any number of tasks may send, one may receive.
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
/// # let mut listener = stack.listen_udp(Network::Udp, None, 53)?;
/// # let client = stack.bind_udp("100.64.0.1:0".parse()?)?;
/// # client.send_to(b"who?", "100.64.0.1:53".parse()?).await?;
/// let (stream, _from) = listener.accept().await?;
/// let mut question = [0; 1280];
/// let length = stream.recv(&mut question).await?;
/// assert_eq!(&question[..length], b"who?");
/// stream.send(b"you").await?;
/// assert_eq!(stream.peer_addr(), client.local_addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpStream {
    shared: Arc<Shared>,
    id: FlowId,
    flow: Flow,
}

impl UdpStream {
    /// The address at this end: the one that the peer sends to.
    ///
    /// [Example](Self)
    pub fn local_addr(&self) -> SocketAddr {
        self.flow.local
    }

    /// The address at the other end.
    ///
    /// [Example](Self)
    pub fn peer_addr(&self) -> SocketAddr {
        self.flow.remote
    }

    /// Sends a datagram, waiting while 256 wait for the way out. Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the datagram is longer than a packet,
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the flow has ended, and
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn send(&self, payload: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send(cx, payload)).await
    }

    /// Sends a datagram, or wakes the task when there is room; see [`send`](Self::send).
    pub fn poll_send(&self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<io::Result<usize>> {
        let (mut inner, now) = self.shared.lock();
        inner.poll_send_flow(self.id, payload, cx, now)
    }

    /// Waits for a datagram; returns its length. What does not fit into `buffer` is lost. Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the flow has ended, and
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        poll_fn(|cx| self.poll_recv(cx, &mut buffer)).await?;
        Ok(buffer.filled().len())
    }

    /// Takes a datagram, or wakes the task when there is one; see [`recv`](Self::recv).
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let received = {
            let (mut inner, _) = self.shared.lock();
            inner.check_open()?;
            inner.udp.flows.poll_receive(self.id, cx.waker())?
        };
        received.map(|(_, payload)| {
            buffer.put_slice(&payload[..payload.len().min(buffer.remaining())]);
            Ok(())
        })
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.shared.lock().0.udp.flows.remove(self.id);
    }
}
