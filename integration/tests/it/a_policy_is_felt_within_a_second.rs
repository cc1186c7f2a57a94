//! A policy that lets alpha reach beta's port 80 and nothing else is felt by running clients within a second: other dials
//! are refused, an open and a fresh connection to the port go on, and who is of no concern to anybody vanishes. The next
//! policy, which allows everything, brings all back. Clients hear both as deltas.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Connection, Kind, Lab, Node, Server, Setup};
use tokio::time::Instant;

scenario!(narrow_and_widen, alone);

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

async fn narrow_and_widen(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    let alpha = join(&server, "alpha", Client::Tsnet).await?;
    let beta = join(&server, "beta", Client::Tsnet).await?;
    let gamma = join(&server, "gamma", Client::TsnetOld).await?;
    alpha.echo(80).await?;
    beta.echo(80).await?;
    beta.echo(81).await?;
    let dials = Dials {
        alpha: &alpha,
        beta: &beta,
        alpha_80: beta.reaches("alpha").await?.port(80)?,
        beta_80: alpha.reaches("beta").await?.port(80)?,
        beta_81: alpha.reaches("beta").await?.port(81)?,
    };
    for (viewer, other) in
        [(&alpha, "gamma"), (&beta, "gamma"), (&gamma, "alpha"), (&gamma, "beta")]
    {
        viewer.reaches(other).await?;
    }
    let open = alpha.open(dials.beta_80).await?;
    dials.all_open(&open).await?;
    let rebuilds = (alpha.full_rebuilds().await?, beta.full_rebuilds().await?);

    let start = Instant::now();
    server.set_policy(NARROW).await?;
    let commanded = start.elapsed();
    let refused = dials.others_refused().await?;
    tell("narrowed", commanded, refused - start)?;
    open.exchange(100_000).await?;
    alpha.until_open(dials.beta_80).await?;
    alpha.loses("gamma").await?;
    beta.loses("gamma").await?;
    gamma.loses("alpha").await?;
    gamma.loses("beta").await?;
    // They are refused although their clients know the way.
    beta.reaches("alpha").await?;
    alpha.reaches("beta").await?;

    let start = Instant::now();
    server.set_policy(WIDE).await?;
    let commanded = start.elapsed();
    let opened = dials.all_open(&open).await?;
    tell("widened", commanded, opened - start)?;
    for (viewer, other) in
        [(&alpha, "gamma"), (&beta, "gamma"), (&gamma, "alpha"), (&gamma, "beta")]
    {
        viewer.reaches(other).await?;
    }
    let after = (alpha.full_rebuilds().await?, beta.full_rebuilds().await?);
    ensure!(
        after == rebuilds,
        "full rebuilds of alpha and beta went from {rebuilds:?} to {after:?}"
    );
    Ok(())
}

async fn join<'a>(server: &'a Server<'a>, name: &str, client: Client) -> Result<Node<'a>> {
    let key = server.tagged_key(&format!("tag:{name}")).await?;
    Node::join(server, name, Kind { client, ..Kind::default() }, &key).await
}

fn tell(what: &str, commanded: Duration, felt: Duration) -> Result<()> {
    eprintln!("{what}: felt {felt:.0?} after the command was begun, which took {commanded:.0?}");
    ensure!(felt <= FELT_MAX, "{what}: felt only after {felt:.0?}");
    Ok(())
}

/// Who dials what.
struct Dials<'a> {
    alpha: &'a Node<'a>,
    beta: &'a Node<'a>,
    alpha_80: SocketAddr,
    beta_80: SocketAddr,
    beta_81: SocketAddr,
}

impl Dials<'_> {
    /// Waits until everything is answered, and returns when that was.
    async fn all_open(&self, open: &Connection<'_>) -> Result<Instant> {
        let times = tokio::try_join!(
            self.beta.until_open(self.alpha_80),
            self.alpha.until_open(self.beta_81),
            self.alpha.until_open(self.beta_80),
        )?;
        open.exchange(100_000).await?;
        Ok(times.0.max(times.1).max(times.2))
    }

    /// Waits until all but beta's port 80 is refused, and returns since when.
    async fn others_refused(&self) -> Result<Instant> {
        let times = tokio::try_join!(
            self.beta.until_refused(self.alpha_80),
            self.alpha.until_refused(self.beta_81),
        )?;
        Ok(times.0.max(times.1))
    }
}
