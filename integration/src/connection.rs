//! TCP connections of a client: those that stay open, and those that a packet filter refuses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::eventually::eventually;
use crate::node::Node;

/// How long a dial that is to be refused waits for an answer: clients drop what they do not allow without a word, and
/// answer in some milliseconds what they allow.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_secs(1);
/// How long a dial that is to be answered waits before it is begun anew. Less than the second after which TCP sends its
/// first packet again, so that it is known when it was allowed.
const TRIED_AFTER: Duration = Duration::from_millis(250);
/// How long something may take to be allowed or refused, unless a scenario says otherwise.
pub(crate) const FELT_MAX: Duration = Duration::from_secs(15);
/// How long an exchange over an open connection may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// An open connection of a client to an echo port.
#[derive(Debug)]
pub struct Connection<'a> {
    node: &'a Node<'a>,
    number: u64,
}

/// What came of a dial.
#[derive(Debug, Deserialize)]
struct Dial {
    /// The connection's number.
    conn: Option<u64>,
    /// Why there is none.
    refusal: Option<String>,
}

impl Connection<'_> {
    /// Sends bytes and verifies what comes back.
    pub async fn exchange(&self, bytes: usize) -> Result<()> {
        self.exchange_within(EXCHANGE_MAX, bytes).await
    }

    /// Waits until nothing that is sent comes back any more.
    pub async fn stops(&self) -> Result<()> {
        let what = format!("a connection of {} stops", self.node.name());
        eventually(FELT_MAX, &what, async || {
            let answered = self.exchange_within(REFUSED_AFTER, 1).await;
            ensure!(answered.is_err(), "it goes on");
            Ok(())
        })
        .await
    }

    pub(crate) async fn exchange_within(&self, patience: Duration, bytes: usize) -> Result<()> {
        let timeout_ms = patience.as_millis();
        let args = json!({"conn": self.number, "bytes": bytes, "timeout_ms": timeout_ms});
        self.node.call("exchange", args).await
    }

    async fn hang_up(self) -> Result<()> {
        self.node.call("hang_up", json!({"conn": self.number})).await
    }
}

impl<'a> Node<'a> {
    /// Opens a connection, at the latest when the client has come to know the way.
    pub async fn open(&'a self, to: SocketAddr) -> Result<Connection<'a>> {
        let what = format!("{} can open {to}", self.name());
        eventually(FELT_MAX, &what, async || match self.dial("tcp", to, TRIED_AFTER).await? {
            Ok(connection) => Ok(connection),
            Err(refusal) => bail!(refusal),
        })
        .await
    }

    /// Waits until a fresh connection is answered, and returns when that was.
    pub async fn until_open(&'a self, to: SocketAddr) -> Result<Instant> {
        self.open(to).await?.hang_up().await?;
        Ok(Instant::now())
    }

    /// Waits until a fresh connection is not answered, and returns when the first such was begun.
    pub async fn until_refused(&'a self, to: SocketAddr) -> Result<Instant> {
        let what = format!("{} can no longer open {to}", self.name());
        eventually(FELT_MAX, &what, async || {
            let begun = Instant::now();
            match self.dial("tcp", to, REFUSED_AFTER).await? {
                Ok(connection) => {
                    connection.hang_up().await?;
                    bail!("it was answered")
                }
                Err(_) => Ok(begun),
            }
        })
        .await
    }

    /// Dials once: a connection, or why there is none.
    pub(crate) async fn dial(
        &'a self,
        network: &str,
        to: SocketAddr,
        patience: Duration,
    ) -> Result<Result<Connection<'a>, String>> {
        let args = json!({"addr": to, "timeout_ms": patience.as_millis(), "network": network});
        let Dial { conn, refusal } = self.call("dial", args).await?;
        match (conn, refusal) {
            (Some(number), None) => Ok(Ok(Connection { node: self, number })),
            (None, Some(refusal)) => Ok(Err(refusal)),
            answer => bail!("dial: {answer:?} is neither a connection nor a refusal"),
        }
    }
}
