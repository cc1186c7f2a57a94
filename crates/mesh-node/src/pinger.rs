//! Pings of peers, for programs and for the control server.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use mesh_stack::Stack;
use mesh_wire::{Node, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::core::Pong;
use crate::engine::Request;
use crate::node::NodeError;

/// How long the answer to a ping is waited for.
const PING_MAX: Duration = Duration::from_secs(5);

/// How long until a ping is sent once more while none is answered. The first may be lost because the peer is still being told of
/// a node that is new.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What shall answer a ping.
///
/// ```
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// # use mesh_node::PingKind;
/// # node.up().await?;
/// # let peer = "100.64.0.9".parse()?;
/// for kind in [PingKind::Disco, PingKind::Tsmp, PingKind::Icmp, PingKind::PeerApi] {
///     match node.ping(peer, kind).await {
///         Ok(pong) => println!("{kind:?}: {:?}", pong.latency),
///         Err(error) => println!("{kind:?}: {error}"),
///     }
/// }
/// # Ok(()) });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingKind {
    /// The peer's search for paths: tells the way there, whether policy lets data take it or not.
    Disco,
    /// The far end of the peer's tunnel.
    Tsmp,
    /// The peer itself, by ICMP: only if its packet filter lets the ping in. Does not tell the way.
    Icmp,
    /// The peer's own HTTP server, which Tailscale's programs have and this one has not. Does not tell the way.
    PeerApi,
}

/// Who pings. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pinger {
    pub(crate) stack: Stack,
    pub(crate) requests: mpsc::Sender<Request>,
}

impl Pinger {
    pub(crate) async fn ping(&self, address: IpAddr, kind: PingKind) -> Result<Pong, NodeError> {
        let request = match kind {
            PingKind::Disco => Request::PingDisco,
            PingKind::Tsmp => Request::PingTsmp,
            PingKind::Icmp => return self.ping_icmp(address).await,
            PingKind::PeerApi => return self.ping_peer_api(address).await,
        };
        let gives_up_at = Instant::now() + PING_MAX;
        let mut answers = Vec::new();
        while Instant::now() < gives_up_at {
            answers.push(self.ask(|answer| request(address, answer)).await?);
            let first = poll_fn(|cx| {
                let mut polled = answers.iter_mut().map(|answer| Pin::new(answer).poll(cx));
                polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
            });
            match timeout_at(gives_up_at.min(Instant::now() + RETRY_PERIOD), first).await {
                Ok(Ok(pong)) => return Ok(pong),
                Ok(Err(_)) => return Err(NodeError::NoPeer(address)),
                Err(_) => {}
            }
        }
        Err(NodeError::NoAnswer(address))
    }

    async fn ping_icmp(&self, address: IpAddr) -> Result<Pong, NodeError> {
        let is_routed = self.ask(|answer| Request::Routes(address, answer)).await?;
        if !is_routed.await.map_err(|_| NodeError::Closed)? {
            return Err(NodeError::NoPeer(address));
        }
        match timeout(PING_MAX, self.stack.ping(address)).await {
            Ok(Ok(latency)) => Ok(Pong { latency, direct: None, relay: None }),
            Ok(Err(_)) | Err(_) => Err(NodeError::NoAnswer(address)),
        }
    }

    /// Source: tailscale `ipn/ipnlocal/local.go`, `pingPeerAPI`.
    async fn ping_peer_api(&self, address: IpAddr) -> Result<Pong, NodeError> {
        let who = self.ask(|answer| Request::WhoIs(address, answer)).await?;
        let who = who.await.map_err(|_| NodeError::Closed)?.ok_or(NodeError::NoPeer(address))?;
        let api = peer_api(&who.node, address.is_ipv4()).ok_or(NodeError::NoAnswer(address))?;
        let asked_at = Instant::now();
        match timeout(PING_MAX, self.ask_for_head(api)).await {
            Ok(Ok(())) => Ok(Pong { latency: asked_at.elapsed(), direct: None, relay: None }),
            Ok(Err(error)) => Err(NodeError::Connect(api, error)),
            Err(_) => Err(NodeError::NoAnswer(address)),
        }
    }

    async fn ask_for_head(&self, api: SocketAddr) -> io::Result<()> {
        let mut stream = self.stack.connect_tcp(None, api).await?;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = *b"HTTP/1.1 200";
        stream.read_exact(&mut status).await?;
        let is_ok = status.starts_with(b"HTTP/1.") && status.ends_with(b" 200");
        if is_ok { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<oneshot::Receiver<T>, NodeError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| NodeError::Closed)?;
        Ok(answer)
    }
}

/// Where a peer says that its own HTTP server is.
fn peer_api(peer: &Node, is_ipv4: bool) -> Option<SocketAddr> {
    let name = if is_ipv4 { Service::PEER_API_4 } else { Service::PEER_API_6 };
    let mut services = peer.hostinfo.as_ref()?.services.iter();
    let port = services.find(|service| service.proto == name)?.port;
    let mut addresses = peer.addresses.iter().map(ipnet::IpNet::addr);
    Some(SocketAddr::new(addresses.find(|own| own.is_ipv4() == is_ipv4)?, port))
}

#[cfg(test)]
mod tests;
