//! The relay's HTTP: TLS and the measurement of latency, and the captive-portal check on port 80.
//!
//! Source: tailscale `net/netcheck/netcheck.go`, `measureHTTPSLatency`; `net/captivedetection`.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_derp_client::tls_config;
use mesh_wire::DerpNode;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Answer, Failure, http, pinned, step};

/// The port of relays where the map names none.
const RELAY_PORT: u16 = 443;

const OK: u16 = 200;
const NO_CONTENT: u16 = 204;

/// Opens a connection as clients do, and measures the latency on it.
pub(super) async fn ask(node: &DerpNode, address: IpAddr, roots: Arc<RootCertStore>) -> Answer {
    let mut io = connect(node, address, roots).await?;
    let asked_at = Instant::now();
    let head = http::get(&mut io, &node.host_name, "/derp/latency-check", "", "");
    let head = step(head).await.map_err(|failure| {
        if let Failure::Io(error) = failure { Failure::NotRelay(error) } else { failure }
    })?;
    if head.status == OK {
        Ok(asked_at.elapsed())
    } else {
        Err(Failure::NotRelay(format!("status {}", head.status)))
    }
}

async fn connect(
    node: &DerpNode,
    address: IpAddr,
    roots: Arc<RootCertStore>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let port = if node.derp_port == 0 { Some(RELAY_PORT) } else { node.derp_port.try_into().ok() };
    let port = port.ok_or_else(|| Failure::Io("derpport is no port".to_owned()))?;
    let name = ServerName::try_from(node.host_name.clone())
        .map_err(|_| Failure::Untrusted("the hostname cannot be in a certificate".to_owned()))?;
    let config = tls_config(node, roots).map_err(|error| Failure::Untrusted(error.to_string()))?;
    let socket = async {
        let socket = TcpStream::connect((address, port)).await?;
        // Else the question waits until the end of the handshake is acknowledged.
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    let socket = step(socket).await?;
    let tls = async {
        let connected = TlsConnector::from(Arc::new(config)).connect(name.clone(), socket).await;
        Ok(connected.map_err(|error| tls_failure(node, &error)))
    };
    let io = step(tls).await??;
    if node.cert_name.contains(':') {
        let shown = io.get_ref().1.peer_certificates().unwrap_or_default();
        pinned::check(shown, &name, UnixTime::now())?;
    }
    Ok(io)
}

/// What a handshake that fails says of a node.
fn tls_failure(node: &DerpNode, error: &io::Error) -> Failure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Failure::Untrusted("nobody known has signed it".to_owned())
        }
        Some(rustls::Error::InvalidCertificate(error)) => Failure::Untrusted(error.to_string()),
        Some(rustls::Error::Other(_)) if node.cert_name.contains(':') => Failure::WrongPin,
        Some(rustls::Error::InvalidMessage(_)) => Failure::NotTls,
        Some(error) => Failure::Io(error.to_string()),
        // Nothing but a TLS server goes on after a client's first message.
        None if error.kind() == io::ErrorKind::UnexpectedEof => Failure::NotTls,
        None => super::failure(error),
    }
}

/// Whether nobody stands between clients and port 80: who does would not know to repeat the challenge.
pub(super) async fn ask_port_80(node: &DerpNode, address: IpAddr) -> Answer {
    ask_challenge(node, (address, 80).into()).await
}

async fn ask_challenge(node: &DerpNode, address: std::net::SocketAddr) -> Answer {
    let mut io = step(TcpStream::connect(address)).await?;
    let challenge =
        format!("ts_{}", node.host_name.replace(|c: char| !c.is_ascii_alphanumeric(), "."));
    let line = format!("X-Tailscale-Challenge: {challenge}\r\n");
    let asked_at = Instant::now();
    let head =
        step(http::get(&mut io, &node.host_name, "/generate_204", &line, "x-tailscale-response"))
            .await?;
    let is_repeated = head.header.as_deref() == Some(format!("response {challenge}").as_str());
    match head.status {
        NO_CONTENT if is_repeated => Ok(asked_at.elapsed()),
        NO_CONTENT => Err(Failure::Portal("204 without the challenge".to_owned())),
        status => Err(Failure::Portal(format!("status {status}"))),
    }
}
