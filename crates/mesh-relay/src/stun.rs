//! STUN over UDP: one datagram in, at most one out, from the address that was asked. A machine with several addresses would take
//! another one for some clients, which hear the one that they have asked and nobody else.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::stun::{encode_binding_response, parse_binding_request};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::listener::ServiceHandle;
use crate::stats::RelayStats;

/// How long a failed read puts off the next.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Room for what one read brings: a row of datagrams of one client, if the system joins them.
const READ_BYTES: usize = 64 << 10;

pub(crate) async fn spawn(
    stats: Arc<RelayStats>,
    addr: SocketAddr,
    cancel: CancellationToken,
) -> io::Result<ServiceHandle> {
    let socket = UdpSocket::bind(addr).await?;
    let local_addr = socket.local_addr()?;
    let server = Server { state: UdpSocketState::new((&socket).into())?, socket, stats };
    let serve = async move {
        cancel.run_until_cancelled(server.serve()).await;
    };
    Ok(ServiceHandle::new(local_addr, AbortOnDropHandle::new(tokio::spawn(serve))))
}

struct Server {
    socket: UdpSocket,
    state: UdpSocketState,
    stats: Arc<RelayStats>,
}

impl Server {
    async fn serve(&self) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.read(&mut buffer).await {
                Ok(meta) => {
                    for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                        self.answer(datagram, &meta);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "STUN socket cannot be read");
                    sleep(READ_PAUSE).await;
                }
            }
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let (mut metas, mut slices) = ([RecvMeta::default()], [IoSliceMut::new(buffer)]);
        let read = || self.state.recv((&self.socket).into(), &mut slices, &mut metas);
        self.socket.async_io(Interest::READABLE, read).await?;
        Ok(metas[0])
    }

    fn answer(&self, datagram: &[u8], meta: &RecvMeta) {
        let Ok(transaction) = parse_binding_request(datagram) else {
            self.stats.stun_ignored.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let transmit = Transmit {
            destination: meta.addr,
            ecn: None,
            contents: &encode_binding_response(&transaction, meta.addr),
            segment_size: None,
            src_ip: meta.dst_ip,
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        // With no room to send, the answer is lost as any datagram may be, and the client asks again.
        if self.socket.try_io(Interest::WRITABLE, send).is_ok() {
            self.stats.stun_answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}
