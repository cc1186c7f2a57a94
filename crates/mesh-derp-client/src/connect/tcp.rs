//! TCP to one relay: by the addresses of the DERP map, or by those that its host name has.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_wire::DerpNode;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ConnectError, DIAL_TIMEOUT};

/// Addresses of one family that are tried of all that a host name has.
const ADDRESSES_MAX: usize = 4;

/// How long one address is tried before the next is too. The attempt goes on meanwhile.
///
/// Source: RFC 8305, "Connection Attempt Delay".
const HEAD_START: Duration = Duration::from_millis(250);

/// Port of a relay if the DERP map gives none.
const DEFAULT_PORT: u16 = 443;

/// Kind of the error that a host has no address of one family.
const NO_ADDRESS: io::ErrorKind = io::ErrorKind::AddrNotAvailable;

/// Connects to a relay by whichever address family answers first.
pub(crate) async fn dial(node: &DerpNode) -> Result<TcpStream, ConnectError> {
    timeout(DIAL_TIMEOUT, race(node)).await.unwrap_or(Err(ConnectError::DialTimeout))
}

async fn race(node: &DerpNode) -> Result<TcpStream, ConnectError> {
    let mut dials = JoinSet::new();
    for target in targets(node) {
        dials.spawn(target.dial());
    }
    let mut failure = ConnectError::NoAddress;
    while let Some(dial) = dials.join_next().await {
        match dial.unwrap_or_else(|error| Err(error.into())) {
            Ok(socket) => return Ok(socket),
            // That there is no address of one family says nothing if there is one of the other.
            Err(error) if error.kind() == NO_ADDRESS && matches!(failure, ConnectError::Tcp(_)) => {
            }
            Err(error) => failure = ConnectError::Tcp(error),
        }
    }
    Err(failure)
}

/// A way to reach a relay.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Address(SocketAddr),
    Name { host: String, port: u16, family: Family },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

/// The ways to reach a relay, one for each address family that the DERP map does not disable. An address of the
/// wrong family or none at all, such as `none`, disables it.
fn targets(node: &DerpNode) -> Vec<Target> {
    let port =
        if node.derp_port == 0 { Some(DEFAULT_PORT) } else { node.derp_port.try_into().ok() };
    let Some(port) = port else { return Vec::new() };
    let target = |(text, family): (&str, Family)| {
        if text.is_empty() {
            return Some(Target::Name { host: node.host_name.clone(), port, family });
        }
        let address = text.parse().ok().filter(|address| family.has(*address))?;
        Some(Target::Address(SocketAddr::new(address, port)))
    };
    let families = [(node.ipv4.as_str(), Family::Ipv4), (node.ipv6.as_str(), Family::Ipv6)];
    families.into_iter().filter_map(target).collect()
}

impl Target {
    async fn dial(self) -> io::Result<TcpStream> {
        let addresses = match self {
            Self::Address(address) => vec![address],
            Self::Name { host, port, family } => {
                let all = lookup_host((host, port)).await?;
                all.filter(|address| family.has(address.ip())).take(ADDRESSES_MAX).collect()
            }
        };
        let socket = connect(addresses).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

/// Connects to whichever address answers first. Each of them has a head start over the next, which ends if it fails.
async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(NO_ADDRESS, "host has no address of this kind");
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        match timeout(HEAD_START, attempts.join_next()).await {
            Ok(Some(attempt)) => match attempt.unwrap_or_else(|error| Err(error.into())) {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            },
            Ok(None) => return Err(failure),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ipv4: &str, ipv6: &str, derp_port: i32, expected: &[Target]) {
        let node = DerpNode {
            host_name: "relay.example".to_owned(),
            ipv4: ipv4.to_owned(),
            ipv6: ipv6.to_owned(),
            derp_port,
            ..DerpNode::default()
        };
        assert_eq!(targets(&node), expected, "{ipv4:?} {ipv6:?} {derp_port}");
    }

    fn name(family: Family) -> Target {
        Target::Name { host: "relay.example".to_owned(), port: 443, family }
    }

    fn address(text: &str) -> Target {
        Target::Address(text.parse().expect("an address"))
    }

    #[test]
    fn families_are_dialled_by_address_by_name_or_not_at_all() {
        check("", "", 0, &[name(Family::Ipv4), name(Family::Ipv6)]);
        check("none", "", 0, &[name(Family::Ipv6)]);
        check("192.0.2.1", "none", 0, &[address("192.0.2.1:443")]);
        check(
            "192.0.2.1",
            "2001:db8::1",
            8443,
            &[address("192.0.2.1:8443"), address("[2001:db8::1]:8443")],
        );
        check("none", "none", 0, &[]);
        check("2001:db8::1", "192.0.2.1", 0, &[]);
    }

    #[tokio::test]
    async fn a_refusal_is_told_rather_than_that_there_is_no_address_of_the_other_family() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let (host_name, derp_port) = ("127.0.0.1".to_owned(), port.into());
        let node = DerpNode { host_name, derp_port, ..DerpNode::default() };
        let Err(ConnectError::Tcp(error)) = dial(&node).await else { panic!("nobody listens") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A listener that takes in no more connections, and swallows who tries. It lasts as long as what is returned.
    async fn swallower() -> (SocketAddr, tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        while let Ok(socket) =
            timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            queued.push(socket.expect("a place in the queue"));
        }
        (address, listener, queued)
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_does_not_keep_us_from_the_next() {
        let (swallower, _listener, _queued) = swallower().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let good = listener.local_addr().expect("an address");
        let dial = timeout(DIAL_TIMEOUT, connect(vec![swallower, good]));
        let socket = dial.await.expect("in time").expect("a connection");
        assert_eq!(socket.peer_addr().expect("an address"), good);
    }

    #[test]
    fn a_port_that_is_none_leaves_no_way() {
        check("", "", -1, &[]);
        check("", "", 65_536, &[]);
        check("192.0.2.1", "none", 65_535, &[address("192.0.2.1:65535")]);
    }
}
