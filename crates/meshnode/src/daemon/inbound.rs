//! What peers open to the node: led to the machine's loopback interface, and what the node routes for others to where it
//! was meant to go.
//!
//! Source: tailscale `wgengine/netstack/netstack.go`, `acceptTCP`: its daemon does so without a network interface.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_node::{AxumListener, ListenError, Node, TcpStream, loopback};
use tokio::io::copy_bidirectional;
use tokio::time::timeout;
use tracing::debug;

/// How long a host that the node routes to may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Serves what the packet filter lets in, for as long as the node lives; beside its own addresses it stands for `routes`. With
/// a network interface the machine takes by itself what is for those addresses.
pub(super) async fn serve(
    node: &Arc<Node>,
    routes: &[IpNet],
    has_interface: bool,
) -> Result<Infallible, ListenError> {
    let of_node = Arc::downgrade(node);
    let is_own =
        move |to: SocketAddr| of_node.upgrade().is_some_and(|node| node.ips().contains(&to.ip()));
    let decide = move |_, to| !has_interface || !is_own(to);
    let inbound = AxumListener::from(node.register_fallback(decide)?);
    let lead = |stream: TcpStream| {
        let to = target(stream.local_addr(), &node.ips(), routes);
        async move {
            if let Some(to) = to {
                lead(stream, to).await;
            }
        }
    };
    Ok(loopback::serve_each(inbound, lead).await)
}

/// Where a connection goes whose peer meant `to`. Nowhere, if that is neither an own address nor a routed one, for policy may
/// allow a peer more than this node offers; nor to the machine itself by an address that means something else to each.
fn target(to: SocketAddr, own: &[IpAddr], routes: &[IpNet]) -> Option<SocketAddr> {
    let ip = to.ip().to_canonical();
    if own.contains(&ip) {
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, to.port())));
    }
    let is_somebody = !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
    let is_routed = routes.iter().any(|route| route.contains(&ip));
    (is_somebody && is_routed).then(|| SocketAddr::new(ip, to.port()))
}

async fn lead(mut stream: TcpStream, to: SocketAddr) {
    let connecting = timeout(CONNECT_MAX, tokio::net::TcpStream::connect(to));
    let led = async {
        let mut local = connecting.await??;
        copy_bidirectional(&mut stream, &mut local).await
    };
    if let Err(error) = led.await {
        debug!(error = &error as &dyn std::error::Error, "connection of a peer was not led on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(to: &str, routes: &[&str]) -> Option<String> {
        let own = ["100.64.0.1".parse().unwrap(), "fd7a:115c:a1e0::1".parse().unwrap()];
        let routes: Vec<IpNet> = routes.iter().map(|route| route.parse().unwrap()).collect();
        target(to.parse().unwrap(), &own, &routes).map(|to| to.to_string())
    }

    #[test]
    fn own_addresses_lead_to_the_machine() {
        assert_eq!(led("100.64.0.1:80", &[]).as_deref(), Some("127.0.0.1:80"));
        assert_eq!(led("[fd7a:115c:a1e0::1]:80", &[]).as_deref(), Some("127.0.0.1:80"));
    }

    #[test]
    fn routed_addresses_lead_to_where_they_say_and_others_nowhere() {
        assert_eq!(led("10.0.0.7:22", &["10.0.0.0/8"]).as_deref(), Some("10.0.0.7:22"));
        assert_eq!(led("192.0.2.7:22", &["10.0.0.0/8"]), None);
        assert_eq!(led("10.0.0.7:22", &[]), None);
    }

    #[test]
    fn an_exit_node_does_not_lead_to_the_machine_itself() {
        for to in ["127.0.0.1:80", "127.9.9.9:80", "0.0.0.0:80", "224.0.0.1:80", "[::1]:80"] {
            assert_eq!(led(to, &["0.0.0.0/0", "::/0"]), None, "{to}");
        }
        assert_eq!(led("[::ffff:127.0.0.1]:80", &["0.0.0.0/0", "::/0"]), None);
        assert!(led("198.51.100.1:80", &["0.0.0.0/0", "::/0"]).is_some());
    }
}
