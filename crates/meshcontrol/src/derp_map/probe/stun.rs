//! STUN as clients send it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mesh_derp::stun::{TransactionId, encode_binding_request, parse_binding_response};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::{Answer, Failure, failure};

/// How long each of the requests is waited for, which may be lost as any datagram.
const WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_millis(1500)];

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1500;

/// Asks until there is an answer, or nobody will give one.
pub(super) async fn ask(server: SocketAddr) -> Answer {
    let socket = connect(server).await.map_err(|error| failure(&error))?;
    let mut transaction = TransactionId::default();
    getrandom::fill(&mut transaction).map_err(|error| Failure::Io(error.to_string()))?;
    let request = encode_binding_request(&transaction);
    for wait in WAITS {
        let asked_at = Instant::now();
        socket.send(&request).await.map_err(|error| failure(&error))?;
        match timeout(wait, receive(&socket, &transaction)).await {
            Ok(Ok(())) => return Ok(asked_at.elapsed()),
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => {}
        }
    }
    Err(Failure::Silent)
}

/// A socket that hears the server alone, and of its port being closed.
async fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn receive(socket: &UdpSocket, transaction: &TransactionId) -> io::Result<()> {
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        let bytes = socket.recv(&mut buffer).await?;
        if parse_binding_response(&buffer[..bytes]).is_ok_and(|(other, _)| other == *transaction) {
            return Ok(());
        }
    }
}
