//! Pings of peers, for programs and for the control server.

use std::net::IpAddr;
use std::time::Duration;

use mesh_stack::Stack;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::core::Pong;
use crate::engine::Request;
use crate::node::NodeError;

/// How long the answer to a ping is waited for.
const PING_MAX: Duration = Duration::from_secs(5);

/// What shall answer a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingKind {
    /// The peer's search for paths: tells the way there, whether policy lets data take it or not.
    Disco,
    /// The far end of the peer's tunnel.
    Tsmp,
    /// The peer itself, by ICMP: only if its packet filter lets the ping in. Does not tell the way.
    Icmp,
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
        };
        let answer = self.ask(|answer| request(address, answer)).await?;
        match timeout(PING_MAX, answer).await {
            Ok(Ok(pong)) => Ok(pong),
            Ok(Err(_)) => Err(NodeError::NoPeer(address)),
            Err(_) => Err(NodeError::NoAnswer(address)),
        }
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

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<oneshot::Receiver<T>, NodeError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| NodeError::Closed)?;
        Ok(answer)
    }
}
