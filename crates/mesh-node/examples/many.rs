//! Many nodes in one process, and what they cost while they do nothing.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run --release -p mesh-node --example many -- 200
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

use mesh_node::Node;
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

/// How long nothing is done.
const IDLE: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let count: usize = std::env::args().nth(1).ok_or("say how many nodes")?.parse()?;
    let (before, begun_at) = (resident_kilobytes()?, Instant::now());
    let mut nodes = Vec::new();
    for index in 0..count {
        let hostname = format!("many-{index}");
        nodes.push(Node::builder().hostname(hostname).ephemeral(true).build().await?);
    }
    for node in &nodes {
        node.up().await?;
    }
    let peers = nodes[0].status().await?.peers.len();
    println!("{count} nodes with {peers} peers are up after {:.1?}", begun_at.elapsed());
    sleep(Duration::from_secs(10)).await;
    let ticks = cpu_ticks()?;
    sleep(IDLE).await;
    // The kernel counts in hundredths of a second, whatever its clock does.
    let ticks = cpu_ticks()? - ticks;
    let each = (resident_kilobytes()? - before) / count;
    println!(
        "each takes {each} KB; all together {}.{:02} s of CPU in a minute",
        ticks / 100,
        ticks % 100
    );
    Ok(())
}

fn resident_kilobytes() -> Result<usize, Box<dyn Error>> {
    let status = read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?.parse()?)
}

/// CPU time of the process, user and system.
fn cpu_ticks() -> Result<u64, Box<dyn Error>> {
    let stat = read_to_string("/proc/self/stat")?;
    // The program's name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace();
    let times = fields.skip(11).take(2).map(str::parse::<u64>);
    Ok(times.sum::<Result<u64, _>>()?)
}
