//! Datagrams between clients.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::node::Node;
use crate::status::Peer;

/// How long one datagram waits for its answer: it may be lost while clients look for a way to each other.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long it may take until one is answered.
const ANSWERED_MAX: Duration = Duration::from_secs(10);

impl Node<'_> {
    /// Serves a UDP port that sends back what comes.
    pub async fn echo_udp(&self, port: u16) -> Result<()> {
        self.call("listen_udp", json!({"port": port})).await
    }

    /// Sends datagrams to a peer's UDP port until one comes back, and verifies it.
    pub async fn datagram_to(&self, peer: &Peer, port: u16, bytes: usize) -> Result<()> {
        let addr = peer.port(port)?;
        let args = json!({"addr": addr, "bytes": bytes, "timeout_ms": ANSWER_MAX.as_millis()});
        let what = format!("{} gets a datagram back from {}", self.name(), peer.name);
        eventually(ANSWERED_MAX, &what, async || self.call::<Value>("datagram", &args).await)
            .await?;
        Ok(())
    }
}
