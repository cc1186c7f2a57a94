//! The UDP sockets of a node: one for IPv4, and one for IPv6 where the machine has it, of the same port if that is free.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt;
use tokio::net::UdpSocket;

/// Longest datagram that is read. Longer ones come from no peer and are cut.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Room for datagrams that wait to be read, or to leave: some milliseconds of a fast network. The system may give less.
///
/// Source: tailscale `wgengine/magicsock`, `socketBufferSize`.
const BUFFER_BYTES: usize = 7 << 20;

/// Both sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: UdpSocket,
    v6: Option<UdpSocket>,
    port: u16,
}

impl Sockets {
    /// Binds them. Port 0 takes a free one.
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        widen(&v4);
        let port = v4.local_addr()?.port();
        // A machine without IPv6, or one where IPv6 sockets take IPv4's ports too, does with one.
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await.ok();
        v6.iter().for_each(widen);
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
                Some(v6) => v6.readable().await,
                None => std::future::pending().await,
            }
        };
        // An error is one that reading meets too.
        tokio::select! {
            _ = self.v4.readable() => {}
            _ = v6 => {}
        }
    }

    /// Takes a datagram, if there is one.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let sockets = [Some(&self.v4), self.v6.as_ref()];
        sockets.into_iter().flatten().find_map(|socket| {
            loop {
                match socket.try_recv_from(buffer) {
                    Ok((length, from)) => {
                        return Some((
                            length,
                            SocketAddr::new(from.ip().to_canonical(), from.port()),
                        ));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    // What the network has to say about an earlier datagram.
                    Err(_) => {}
                }
            }
        })
    }

    /// Sends a datagram. When the socket has no room it is lost, as on any network.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let socket = socket.ok_or(io::ErrorKind::AddrNotAvailable)?;
        match socket.try_send_to(datagram, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
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
