//! A policy that lets alpha reach beta's port 80 and nothing else is felt by running clients within a second: other dials
//! are refused, an open and a fresh connection to the port go on, and who is of no concern to anybody vanishes. The next
//! policy, which allows everything, brings all back. Clients hear both as deltas.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};
use tokio::time::Instant;

/// From the start of the command that sets a policy until clients act on it, as promised. A loaded machine of two cores
/// meets it several times over; nothing else of this test run is at work meanwhile.
const FELT_MAX: Duration = Duration::from_secs(1);

const NARROW: &str = r#"{
    "tagOwners": {"tag:alpha": [], "tag:beta": [], "tag:gamma": []},
    "acls": [{"action": "accept", "src": ["tag:alpha"], "dst": ["tag:beta:80"]}],
}"#;

const WIDE: &str = r#"{
    "tagOwners": {"tag:alpha": [], "tag:beta": [], "tag:gamma": []},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
}"#;

mod by_the_newest_client {
    use super::{Client, Lab, Result, narrow_and_widen};

    scenario!(feel, alone);

    async fn feel(lab: &Lab) -> Result<()> {
        narrow_and_widen(lab, Client::Tsnet).await
    }
}

mod by_the_oldest_client {
    use super::{Client, Lab, Result, narrow_and_widen};

    scenario!(feel, alone);

    async fn feel(lab: &Lab) -> Result<()> {
        narrow_and_widen(lab, Client::TsnetOld).await
    }
}

mod by_ours {
    use super::{Client, Lab, Result, narrow_and_widen};

    scenario!(feel, alone);

    async fn feel(lab: &Lab) -> Result<()> {
        narrow_and_widen(lab, Client::Ours).await
    }
}

/// With beta as the client in question, between two of the newest.
async fn narrow_and_widen(lab: &Lab, client: Client) -> Result<()> {
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    let three = Three::join(&server, client).await?;
    three.alpha.reaches("beta").await?;
    three.beta.reaches("alpha").await?;
    let open = three.alpha.open(three.beta_80).await?;
    three.all_is_open().await?;
    open.exchange(100_000).await?;
    let rebuilds = three.full_rebuilds().await?;

    let start = Instant::now();
    server.set_policy(NARROW).await?;
    let commanded = start.elapsed();
    let felt_at = three.only_one_port_is_open().await?;
    check_felt("narrowed", commanded, felt_at - start)?;
    open.exchange(100_000).await?;
    three.alpha.until_open(three.beta_80).await?;
    // They are refused although they know each other.
    three.alpha.reaches("beta").await?;
    three.beta.reaches("alpha").await?;

    let start = Instant::now();
    server.set_policy(WIDE).await?;
    let commanded = start.elapsed();
    let felt_at = three.all_is_open().await?;
    check_felt("widened", commanded, felt_at - start)?;
    open.exchange(100_000).await?;

    let after = three.full_rebuilds().await?;
    ensure!(after == rebuilds, "full rebuilds went from {rebuilds:?} to {after:?}");
    Ok(())
}

fn check_felt(what: &str, commanded: Duration, felt: Duration) -> Result<()> {
    eprintln!("{what}: felt {felt:.0?} after the command was begun, which took {commanded:.0?}");
    ensure!(felt <= FELT_MAX, "{what}: felt only after {felt:.0?}");
    Ok(())
}

/// The nodes, and what they dial.
struct Three<'a> {
    alpha: Node<'a>,
    beta: Node<'a>,
    gamma: Node<'a>,
    alpha_80: SocketAddr,
    beta_80: SocketAddr,
    beta_81: SocketAddr,
}

impl<'a> Three<'a> {
    async fn join(server: &'a Server<'a>, client: Client) -> Result<Self> {
        let alpha = join(server, "alpha", Client::Tsnet).await?;
        let beta = join(server, "beta", client).await?;
        let gamma = join(server, "gamma", Client::Tsnet).await?;
        alpha.echo(80).await?;
        beta.echo(80).await?;
        beta.echo(81).await?;
        let (alpha_self, beta_self) = (alpha.running().await?, beta.running().await?);
        Ok(Self {
            alpha_80: alpha_self.port(80)?,
            beta_80: beta_self.port(80)?,
            beta_81: beta_self.port(81)?,
            alpha,
            beta,
            gamma,
        })
    }

    /// Waits until everybody sees everybody and every dial is answered, and returns when that was.
    async fn all_is_open(&self) -> Result<Instant> {
        tokio::try_join!(
            self.alpha.reaches("gamma"),
            self.beta.reaches("gamma"),
            self.gamma.reaches("alpha"),
            self.gamma.reaches("beta"),
        )?;
        let seen_at = Instant::now();
        let (first, second, third) = tokio::try_join!(
            self.alpha.until_open(self.beta_80),
            self.alpha.until_open(self.beta_81),
            self.beta.until_open(self.alpha_80),
        )?;
        Ok(seen_at.max(first).max(second).max(third))
    }

    /// Waits until nobody sees gamma, nor gamma anybody, and all dials are refused but those to beta's port 80; returns
    /// since when.
    async fn only_one_port_is_open(&self) -> Result<Instant> {
        let gamma_vanishes = async {
            tokio::try_join!(
                self.alpha.loses("gamma"),
                self.beta.loses("gamma"),
                self.gamma.loses("alpha"),
                self.gamma.loses("beta"),
            )?;
            Ok(Instant::now())
        };
        let (first, second, third) = tokio::try_join!(
            gamma_vanishes,
            self.alpha.until_refused(self.beta_81),
            self.beta.until_refused(self.alpha_80),
        )?;
        Ok(first.max(second).max(third))
    }

    /// Of each that counts them.
    async fn full_rebuilds(&self) -> Result<Vec<i64>> {
        let mut counts = Vec::new();
        for node in [&self.alpha, &self.beta, &self.gamma] {
            if node.client() == Client::Tsnet {
                counts.push(node.full_rebuilds().await?);
            }
        }
        Ok(counts)
    }
}

async fn join<'a>(server: &'a Server<'a>, name: &str, client: Client) -> Result<Node<'a>> {
    let key = server.tagged_key(&format!("tag:{name}")).await?;
    Node::join(server, name, Kind { client, ..Kind::default() }, &key).await
}
