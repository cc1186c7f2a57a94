//! Datagrams between clients: single ones, and flows.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::connection::{Connection, FELT_MAX, REFUSED_AFTER};
use crate::eventually::eventually;
use crate::node::Node;
use crate::status::Peer;

/// How long one datagram waits for its answer: it may be lost while clients look for a way to each other.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long it may take until one is answered.
const ANSWERED_MAX: Duration = Duration::from_secs(10);
/// How long the `tailscale` crate and another may take to have a tunnel. What is sent to it is lost until it is at its relay,
/// and a handshake that is lost is sent again after 5 s. It answers every copy of one that came by two ways, and goes by its last
/// answer: the other one begins again after 15 s without any.
const TUNNEL_MAX: Duration = Duration::from_secs(45);
/// The length of the datagrams of a flow.
const FLOW_BYTES: usize = 1000;

/// A UDP socket of a client that sends to an echo port of a peer, and to nobody else.
#[derive(Debug)]
pub struct Flow<'a> {
    node: &'a Node<'a>,
    connection: Connection<'a>,
}

impl Flow<'_> {
    /// Sends datagrams until one comes back, and verifies it.
    pub async fn goes_on(&self) -> Result<()> {
        let what = format!("a flow of {} goes on", self.node.name());
        let ask = async || self.connection.exchange_within(ANSWER_MAX, FLOW_BYTES).await;
        eventually(ANSWERED_MAX, &what, ask).await
    }

    /// Waits until nothing that is sent comes back any more.
    pub async fn stops(&self) -> Result<()> {
        let what = format!("a flow of {} stops", self.node.name());
        eventually(FELT_MAX, &what, async || {
            let answered = self.connection.exchange_within(REFUSED_AFTER, FLOW_BYTES).await;
            ensure!(answered.is_err(), "it goes on");
            Ok(())
        })
        .await
    }
}

impl<'a> Node<'a> {
    /// Serves a UDP port that sends back what comes.
    pub async fn echo_udp(&self, port: u16) -> Result<()> {
        self.call("listen_udp", json!({"port": port})).await
    }

    /// Waits until datagrams to a peer's UDP port come back, for the `tailscale` crate and another: it may reset a TCP connection
    /// whose first packet comes twice, as it does when it has waited for a tunnel.
    pub async fn has_tunnel_to(&self, peer: &Peer, port: u16) -> Result<()> {
        let what = format!("{} has a tunnel to {}", self.name(), peer.name);
        let to = peer.port(port)?;
        eventually(TUNNEL_MAX, &what, async || self.datagram(to, FLOW_BYTES, ANSWER_MAX).await)
            .await
    }

    /// Opens a flow, and waits until a datagram comes back.
    pub async fn open_flow(&'a self, to: SocketAddr) -> Result<Flow<'a>> {
        let connection =
            self.dial("udp", to, ANSWER_MAX).await?.map_err(|refusal| anyhow!(refusal))?;
        let flow = Flow { node: self, connection };
        flow.goes_on().await?;
        Ok(flow)
    }

    /// Sends datagrams to a peer's UDP port, each from a fresh socket, until one comes back, and verifies it.
    pub async fn datagram_to(&self, peer: &Peer, port: u16, bytes: usize) -> Result<()> {
        let what = format!("{} gets a datagram back from {}", self.name(), peer.name);
        let to = peer.port(port)?;
        eventually(ANSWERED_MAX, &what, async || self.datagram(to, bytes, ANSWER_MAX).await).await
    }

    /// Waits until no datagram to a peer's UDP port comes back that is sent from a fresh socket.
    pub async fn until_unanswered(&self, peer: &Peer, port: u16) -> Result<()> {
        let what = format!("{} gets no datagram back from {}", self.name(), peer.name);
        let to = peer.port(port)?;
        eventually(FELT_MAX, &what, async || {
            let answered = self.datagram(to, FLOW_BYTES, REFUSED_AFTER).await;
            ensure!(answered.is_err(), "it was answered");
            Ok(())
        })
        .await
    }

    async fn datagram(&self, to: SocketAddr, bytes: usize, patience: Duration) -> Result<()> {
        let args = json!({"addr": to, "bytes": bytes, "timeout_ms": patience.as_millis()});
        self.call::<Value>("datagram", args).await?;
        Ok(())
    }
}
