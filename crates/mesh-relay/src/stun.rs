//! STUN over UDP: one datagram in, at most one out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::stun::{REQUEST_BYTES_MAX, encode_binding_response, parse_binding_request};
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::listener::ServiceHandle;
use crate::stats::RelayStats;

/// How long a failed read puts off the next.
const READ_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn spawn(
    stats: Arc<RelayStats>,
    addr: SocketAddr,
    cancel: CancellationToken,
) -> io::Result<ServiceHandle> {
    let socket = UdpSocket::bind(addr).await?;
    let local_addr = socket.local_addr()?;
    let server = async move {
        cancel.run_until_cancelled(serve(&socket, &stats)).await;
    };
    Ok(ServiceHandle::new(local_addr, AbortOnDropHandle::new(tokio::spawn(server))))
}

async fn serve(socket: &UdpSocket, stats: &RelayStats) {
    // A datagram that does not fit is cut off, and then lacks the fingerprint at its end.
    let mut datagram = [0; REQUEST_BYTES_MAX];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((bytes, sender)) => answer(socket, stats, &datagram[..bytes], sender),
            Err(error) => {
                tracing::debug!(%error, "STUN socket cannot be read");
                sleep(READ_PAUSE).await;
            }
        }
    }
}

fn answer(socket: &UdpSocket, stats: &RelayStats, datagram: &[u8], sender: SocketAddr) {
    let Ok(transaction) = parse_binding_request(datagram) else {
        stats.stun_ignored.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let response = encode_binding_response(&transaction, sender);
    // With no room to send, the answer is lost as any datagram may be, and the client asks again.
    if socket.try_send_to(&response, sender).is_ok() {
        stats.stun_answered.fetch_add(1, Ordering::Relaxed);
    }
}
