//! One tailnet, from the start of its server to the last step.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_client::{ControlClient, Dialer};
use mesh_integration::{Kind, Lab, Node, Server, Setup, Up, Visitor, eventually};
use mesh_keys::MachinePrivate;
use mesh_wire::CapabilityVersion;
use tokio::time::{Instant, sleep};

use crate::figures::{Figures, Steps, Stock};
use crate::viewer::Viewer;

/// How long a stock client is left alone with its first map.
const STOCK_PAUSE: Duration = Duration::from_secs(5);

/// How long nothing happens between two steps. A server that is told one change after the other holds them back, in
/// order to tell several at once; here each is by itself.
const STEP_PAUSE: Duration = Duration::from_millis(300);

/// Steps before those that count: caches fill, and addresses are first looked for.
const WARM_UP: u32 = 10;

/// How long a stock client may take until it has taken in its first map.
const STOCK_MAX: Duration = Duration::from_mins(2);

/// Measures a server in a tailnet of so many synthetic nodes.
pub(crate) async fn measure(
    lab: &Lab,
    nodes: u32,
    steps: u32,
    stock_steps: u32,
) -> Result<Figures> {
    let setup = Setup { synthetic_nodes: nodes, ..Setup::default() };
    let server = Server::start(lab, setup).await?;
    server.stop().await?;
    let started_at = Instant::now();
    server.launch().await?;
    let start = started_at.elapsed();
    let after_start = server.usage().await?;

    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let (mut viewer, first_map) = Viewer::join(&dialer, &key).await?;
    ensure!(viewer.peers() == nodes as usize, "the viewer sees {} peers", viewer.peers());

    let mut tour = Tour { server: &server, dialer, key: &key, made: 0, last: None };
    tour.take(WARM_UP, &mut viewer).await?;
    let steps = tour.take(steps, &mut viewer).await?;
    // All is quiet, so the stream has told what a map that is asked for tells.
    let second_map = viewer.check_fold().await?;
    let channel = tour.channels(steps.count).await?;
    let stock = match stock_steps {
        0 => None,
        count => Some(tour.beside_stock(count, &mut viewer).await?),
    };
    ensure!(viewer.rebuilt == 0, "{} messages were no deltas to stock clients", viewer.rebuilt);
    let at_end = server.usage().await?;
    server.stop().await?;
    Ok(Figures { start, after_start, first_map, second_map, steps, channel, at_end, stock })
}

/// Visitors that come and go one after the other.
struct Tour<'s> {
    server: &'s Server<'s>,
    dialer: Dialer,
    key: &'s str,
    made: u32,
    last: Option<Visitor>,
}

impl Tour<'_> {
    /// Has so many visitors come, and each leave when the next is seen.
    async fn take(&mut self, count: u32, viewer: &mut Viewer) -> Result<Steps> {
        let before = self.server.usage().await?.processor;
        let mut steps = Steps { count, ..Steps::default() };
        for _ in 0..count {
            self.step(viewer, &mut steps).await?;
        }
        steps.processor = self.server.usage().await?.processor.saturating_sub(before);
        Ok(steps)
    }

    async fn step(&mut self, viewer: &mut Viewer, steps: &mut Steps) -> Result<()> {
        self.made += 1;
        let began_at = Instant::now();
        let visitor =
            Visitor::join(&self.dialer, self.key, &format!("visitor-{}", self.made)).await?;
        steps.joins.push(began_at.elapsed());
        let announced_at = Instant::now();
        visitor.announce().await?;
        steps.deliveries.push(viewer.until_seen(visitor.node_key()).await? - announced_at);
        if let Some(last) = self.last.replace(visitor) {
            let node_key = last.node_key();
            last.leave().await?;
            viewer.until_gone(node_key).await?;
        }
        sleep(STEP_PAUSE).await;
        Ok(())
    }

    /// What one channel costs the server that nothing is asked over: handshake and HTTP/2.
    async fn channels(&self, count: u32) -> Result<Duration> {
        let before = self.server.usage().await?.processor;
        let version = CapabilityVersion::CURRENT;
        for _ in 0..count {
            ControlClient::connect(&self.dialer, &MachinePrivate::generate()?, version).await?;
        }
        Ok(self.server.usage().await?.processor.saturating_sub(before) / count.max(1))
    }

    /// Takes steps while a stock client looks on too, and checks that it has seen them.
    async fn beside_stock(&mut self, count: u32, viewer: &mut Viewer) -> Result<Stock> {
        let began_at = Instant::now();
        let node = Node::spawn(self.server, "stock", Kind::default())?;
        node.up(Up { auth_key: Some(self.key), ..Up::default() }).await?;
        self.until_known(&node, viewer).await?;
        let up = began_at.elapsed();
        // A delta that comes while it still works on its first map for more than 2 s has it make a map anew.
        sleep(STOCK_PAUSE).await;
        let before = node.settled().await?;
        self.take(count, viewer).await?;
        self.until_known(&node, viewer).await?;
        let after = node.settled().await?;
        node.close().await?;
        Ok(Stock {
            up,
            steps: count,
            in_place: after.in_place - before.in_place,
            rebuilt: after.rebuilt - before.rebuilt,
        })
    }

    /// Waits until a stock client knows whose address the last visitor's is.
    async fn until_known(&self, node: &Node<'_>, viewer: &Viewer) -> Result<()> {
        let last = self.last.as_ref().context("no visitor yet")?;
        let address = viewer.address(last.node_key()).context("the last visitor has no address")?;
        let what = "the stock client knows the last visitor";
        eventually(STOCK_MAX, what, async || node.whois(address).await).await?;
        Ok(())
    }
}
