//! Where an operator looks: the listener for metrics.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// The address of the metrics that nobody has chosen.
const ADDRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Most connections of those who ask for metrics.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Binds the listener for metrics, if it is wanted and the address that nobody has chosen is free.
pub(crate) async fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        // It is also the port of Prometheus itself, which is no reason not to serve.
        Err(error) if error.kind() == ErrorKind::AddrInUse && address == ADDRESS_DEFAULT => {
            tracing::warn!(
                "there are no metrics, for something else listens on {address}: set metrics_listen_addr"
            );
            return Ok(None);
        }
        Err(error) => {
            let what = format!("cannot listen on {address}: set metrics_listen_addr");
            return Err(anyhow::Error::from(error).context(what));
        }
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(metrics.listen = %address, "metrics are served");
    }
    Ok(Some(listener))
}
