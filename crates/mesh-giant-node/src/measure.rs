//! The node under test, and what is measured of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use mesh_node::{Node, Watch, WatchEvent};
use mesh_wire::NodeId;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use crate::handle::ControlHandle;
use crate::process::{processor_time, resident_bytes_peak, shared_clock};
use crate::tailnet::{address, first_added};

/// Steps that are not counted: the first ones find everything cold.
const WARM_UP_STEPS: u32 = 200;

/// How often is looked whether the first map, or the last of many steps, has been applied.
const LOOK_PERIOD: Duration = Duration::from_millis(1);

/// The longest wait for a first map, and for all steps.
const PATIENCE: Duration = Duration::from_mins(5);

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Peers of the first map
    #[arg(long, default_value_t = 250_000)]
    nodes: u32,
    /// How many times a peer comes and another goes
    #[arg(long, default_value_t = 2_000)]
    steps: u32,
    /// Have the control server in the same process, as Tailscale's benchmark does, and all in one thread
    #[arg(long)]
    pub(crate) together: bool,
}

/// What came out. Times of steps are their mean, processor times those of the process named; both are one when together.
#[derive(Debug, Serialize)]
struct Figures {
    nodes: u32,
    steps: u32,
    /// From the first byte of the first map until its last peer is found.
    first_map_ms: f64,
    first_map_cpu_ms: f64,
    /// Of the node's process, when it had the first map.
    resident_peak_bytes: u64,
    /// One step after the other, nobody watching.
    unwatched: CostMicros,
    /// Each step once the watcher has heard of the peer of the one before.
    watched: CostMicros,
    /// For each step one event is waited for, whichever: so steps overlap, for each causes two. The last peer is waited for.
    noticed: CostMicros,
}

/// What a step costs, in microseconds.
#[derive(Debug, Serialize)]
struct CostMicros {
    wall: f64,
    node_cpu: f64,
    control_cpu: f64,
}

/// Measures a node and prints the figures.
pub(crate) async fn run(options: Options) -> Result<()> {
    // As a task among those of the node: what it waits for then needs no other thread to wake up.
    let figures = tokio::spawn(measure(options)).await??;
    #[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
    {
        println!("{}", serde_json::to_string(&figures)?);
    }
    Ok(())
}

async fn measure(options: Options) -> Result<Figures> {
    let Options { nodes, steps, together } = options;
    let mut control = if together {
        ControlHandle::spawn_tasks(nodes).await?
    } else {
        ControlHandle::spawn_process(nodes).await?
    };
    let node = Node::builder().control_url(&control.url).hostname("giantnode").ephemeral(true);
    let node = node.build().await?;
    let cpu_before = processor_time();
    let began_at = control.map_began_at().await?;
    let added = first_added(nodes);
    timeout(PATIENCE, known(&node, added - 1)).await.context("no first map")??;
    let first_map = shared_clock().saturating_sub(began_at);
    let first_map_cpu = processor_time().saturating_sub(cpu_before);
    let resident_peak_bytes = resident_bytes_peak()?;
    let mut walk = Walk { control, node, next: added };
    walk.unwatched(WARM_UP_STEPS).await?;
    let unwatched = walk.unwatched(steps).await?;
    walk.watched(WARM_UP_STEPS, Heard::Peer).await?;
    let watched = walk.watched(steps, Heard::Peer).await?;
    let noticed = walk.watched(steps, Heard::Anything).await?;
    Ok(Figures {
        nodes,
        steps,
        first_map_ms: first_map.as_secs_f64() * 1e3,
        first_map_cpu_ms: first_map_cpu.as_secs_f64() * 1e3,
        resident_peak_bytes,
        unwatched,
        watched,
        noticed,
    })
}

/// Waits until the node has its addresses, which come last in a first map, and knows a peer.
async fn known(node: &Node, id: u32) -> Result<()> {
    while node.ips().is_empty() || node.who_is(address(id)).await?.is_none() {
        sleep(LOOK_PERIOD).await;
    }
    Ok(())
}

/// What a watcher waits for.
#[derive(Clone, Copy)]
enum Heard {
    /// The peer that came.
    Peer,
    /// One event, as the watcher of Tailscale's benchmark waits for one notice.
    Anything,
}

/// Peers come and go.
struct Walk {
    control: ControlHandle,
    node: Node,
    /// Who comes next.
    next: u32,
}

impl Walk {
    /// As fast as the node takes it. The last peer is waited for.
    async fn unwatched(&mut self, steps: u32) -> Result<CostMicros> {
        let meter = self.begin().await?;
        let end = self.next + steps;
        for _ in 0..steps {
            self.control.step().await?;
        }
        timeout(PATIENCE, known(&self.node, end - 1)).await.context("too slow")??;
        self.next = end;
        meter.end(&mut self.control, steps).await
    }

    /// Step by step: the next when the watcher has heard of the one before.
    async fn watched(&mut self, steps: u32, heard: Heard) -> Result<CostMicros> {
        let mut watch = self.node.watch();
        let meter = self.begin().await?;
        let end = self.next + steps;
        let walked = async {
            for id in self.next..end {
                self.control.step().await?;
                match heard {
                    Heard::Peer => heard_of(&mut watch, NodeId(id.into())).await?,
                    Heard::Anything => drop(watch.next().await?),
                }
            }
            known(&self.node, end - 1).await
        };
        timeout(PATIENCE, walked).await.context("too slow")??;
        self.next = end;
        meter.end(&mut self.control, steps).await
    }

    async fn begin(&mut self) -> Result<Meter> {
        let control_cpu = self.control.processor_time().await?;
        Ok(Meter { node_cpu: processor_time(), control_cpu, began_at: Instant::now() })
    }
}

/// Waits until a watcher hears of a peer.
async fn heard_of(watch: &mut Watch, id: NodeId) -> Result<()> {
    loop {
        match watch.next().await? {
            WatchEvent::Peer(peer) if peer.id == id => return Ok(()),
            WatchEvent::Lagged => bail!("the watcher is too slow"),
            WatchEvent::Peer(_)
            | WatchEvent::PeerRemoved(_)
            | WatchEvent::State(_)
            | WatchEvent::SelfNode(_) => {}
        }
    }
}

/// What clocks said before some steps.
struct Meter {
    node_cpu: Duration,
    control_cpu: Duration,
    began_at: Instant,
}

impl Meter {
    async fn end(self, control: &mut ControlHandle, steps: u32) -> Result<CostMicros> {
        let wall = self.began_at.elapsed();
        let node_cpu = processor_time().saturating_sub(self.node_cpu);
        let control_cpu = control.processor_time().await?.saturating_sub(self.control_cpu);
        let per_step = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(steps);
        Ok(CostMicros {
            wall: per_step(wall),
            node_cpu: per_step(node_cpu),
            control_cpu: per_step(control_cpu),
        })
    }
}
