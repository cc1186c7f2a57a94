//! A UDP socket in the hands of a program.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use crate::packet::Flow;
use crate::stack::Shared;

/// A UDP socket.
///
/// A datagram is at most a packet long: nothing is fragmented. 256 KiB may wait to be received, 64 bytes per
/// datagram included; after that the oldest are dropped. Any number of tasks may send, one may receive.
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
/// let socket = stack.bind_udp("100.64.0.1:5353".parse()?)?;
/// socket.send_to(b"echo", socket.local_addr()).await?;
/// let mut datagram = [0; 1280];
/// let (length, from) = socket.recv_from(&mut datagram).await?;
/// assert_eq!((&datagram[..length], from), (&b"echo"[..], socket.local_addr()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    shared: Arc<Shared>,
    local: SocketAddr,
}

impl UdpSocket {
    pub(crate) fn new(shared: Arc<Shared>, local: SocketAddr) -> Self {
        Self { shared, local }
    }

    /// The address that datagrams to this socket have.
    ///
    /// [Example](Self)
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends a datagram, waiting while 256 wait for the way out. Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the datagram is longer than a packet, or `remote` is
    /// no host, has no port or is of the other family; [`NetworkDown`](io::ErrorKind::NetworkDown) once
    /// [`Outgoing`](crate::Outgoing) is gone.
    pub async fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send_to(cx, payload, remote)).await
    }

    /// Sends a datagram, or wakes the task when there is room; see [`send_to`](Self::send_to).
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        remote: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let (mut inner, _) = self.shared.lock();
        inner.poll_send_to(Flow { local: self.local, remote }, payload, cx)
    }

    /// Waits for a datagram; returns its length and who sent it. What does not fit into `buffer` is lost.
    /// Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut buffer = ReadBuf::new(buffer);
        let from = poll_fn(|cx| self.poll_recv_from(cx, &mut buffer)).await?;
        Ok((buffer.filled().len(), from))
    }

    /// Takes a datagram, or wakes the task when there is one; see [`recv_from`](Self::recv_from).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let received = {
            let (mut inner, _) = self.shared.lock();
            inner.check_open()?;
            inner.udp.poll_receive(self.local, cx.waker())
        };
        received.map(|(from, payload)| {
            buffer.put_slice(&payload[..payload.len().min(buffer.remaining())]);
            Ok(from)
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.shared.lock().0.udp.remove(self.local);
    }
}
