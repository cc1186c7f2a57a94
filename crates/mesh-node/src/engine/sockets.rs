//! The UDP sockets of a node: one for IPv4, and one for IPv6 where the machine has it, of the same port if that is free.
//!
//! Datagrams are sent and read in runs, many in one system call, where the system can do that.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::core::{Batch, Recipient, Run};

/// Longest datagram that is read, and longest run of datagrams.
const READ_BYTES_MAX: usize = 1 << 16;

/// Room for datagrams that wait to be read, or to leave: some milliseconds of a fast network. The system may give less.
///
/// Source: tailscale `wgengine/magicsock`, `socketBufferSize`.
const BUFFER_BYTES: usize = 7 << 20;

/// Runs that are read in one go, before others get their turn.
const RUNS_AT_ONCE: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };

/// Both sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: Socket,
    v6: Option<Socket>,
    port: u16,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Where runs are read to.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; RUNS_AT_ONCE * READ_BYTES_MAX].into())
    }
}

impl Sockets {
    /// Binds them. Port 0 takes a free one.
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        let v4 = Socket::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?)?;
        let port = v4.socket.local_addr()?.port();
        // A machine without IPv6, or one where IPv6 sockets take IPv4's ports too, does with one.
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await;
        let v6 = v6.and_then(Socket::new).ok();
        Ok(Self { v4, v6, port })
    }

    /// The port of the IPv4 socket, and of the other if there is one.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until a datagram may be there. Safe to cancel.
    pub(crate) async fn readable(&self) {
        let v6 = async {
            match &self.v6 {
                Some(v6) => v6.socket.readable().await,
                None => std::future::pending().await,
            }
        };
        // An error is one that reading meets too.
        tokio::select! {
            _ = self.v4.socket.readable() => {}
            _ = v6 => {}
        }
    }

    /// Takes datagrams that are there.
    pub(crate) fn receive(&self, buffer: &mut Buffer, mut take: impl FnMut(&[u8], SocketAddr)) {
        for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            socket.receive(buffer, &mut take);
        }
    }

    /// Sends datagrams. When the socket has no room they are lost, as on any network. `failed` is told of runs that the
    /// system does not send.
    pub(crate) fn send(&self, datagrams: &Batch<Recipient>, mut failed: impl FnMut(&Run<'_>)) {
        for run in datagrams.runs(self.v4.state.max_gso_segments()) {
            let socket = if run.to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
            if socket.is_none_or(|socket| socket.send(&run).is_err()) {
                failed(&run);
            }
        }
    }
}

impl Socket {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        widen(&socket);
        // Tunnels have one packet size for all paths: narrow ones get fragments, from the system if it knows, as by default.
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT).ok();
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT).ok();
        Ok(Self { socket, state })
    }

    fn receive(&self, Buffer(bytes): &mut Buffer, take: &mut impl FnMut(&[u8], SocketAddr)) {
        let mut metas = [RecvMeta::default(); RUNS_AT_ONCE];
        let mut slices = bytes.chunks_mut(READ_BYTES_MAX).map(IoSliceMut::new);
        let mut slices: [_; RUNS_AT_ONCE] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let read = || self.state.recv((&self.socket).into(), &mut slices, &mut metas);
        // An error is what the network has to say about an earlier datagram.
        let count = self.socket.try_io(Interest::READABLE, read).unwrap_or_default();
        for (meta, run) in metas[..count].iter().zip(bytes.chunks(READ_BYTES_MAX)) {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            for datagram in run[..meta.len].chunks(meta.stride.max(1)) {
                take(datagram, from);
            }
        }
    }

    fn send(&self, run: &Run<'_>) -> io::Result<()> {
        run.send(|bytes| self.transmit(run.to, bytes, run.segment))
    }

    fn transmit(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: Some(segment),
            src_ip: None,
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        match self.socket.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }
}

/// Asks for room beyond what the system gives to everybody, or else for as much as that. Without it, less passes in time.
fn widen(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, BUFFER_BYTES).ok();
    }
    if sockopt::set_socket_send_buffer_size(socket, BUFFER_BYTES).is_err() {
        tracing::debug!("sockets keep the system's buffers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends datagrams of these lengths, and returns those that came.
    async fn pass(lengths: &[usize]) -> Vec<usize> {
        let (from, to) = (Sockets::bind(0).await, Sockets::bind(0).await);
        let (from, to) = (from.expect("sockets"), to.expect("sockets"));
        // What is sent before is lost, as by a socket without room.
        from.v4.socket.writable().await.expect("a socket");
        let recipient = Recipient { to: (Ipv4Addr::LOCALHOST, to.port()).into(), peer: None };
        let mut batch = Batch::default();
        for length in lengths {
            batch.push(&vec![7; *length], recipient);
        }
        from.send(&batch, |run| panic!("{} were not sent", run.bytes.len()));
        let (mut buffer, mut came) = (Buffer::default(), Vec::new());
        while came.len() < lengths.len() {
            to.readable().await;
            to.receive(&mut buffer, |datagram, _| came.push(datagram.len()));
        }
        came
    }

    #[tokio::test]
    async fn datagrams_come_as_they_were_sent() {
        for lengths in [&[100, 100, 100, 40][..], &[40, 100], &[1], &[1200; 70]] {
            assert_eq!(pass(lengths).await, lengths);
        }
    }
}
