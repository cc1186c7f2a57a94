//! How much passes between two nodes of one process, and how long a byte takes there and back.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run --release -p mesh-node --example load
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_node::Node;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

/// How long data is sent.
const SENDING: Duration = Duration::from_secs(5);

/// How many round trips are measured.
const ROUND_TRIPS: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let [sender, receiver] = [join("load-sender").await?, join("load-receiver").await?];
    let mut drain = receiver.listen(9)?;
    let mut echo = receiver.listen(7)?;
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await?;
        let mut byte = [0];
        while stream.read(&mut byte).await? > 0 {
            stream.write_all(&byte).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let drained = tokio::spawn(async move {
        let (mut stream, _) = drain.accept().await?;
        copy(&mut stream, &mut sink()).await
    });

    let mut round_trips = round_trips(&sender, &receiver).await?;
    round_trips.sort_unstable();
    let (median, slow) = (round_trips[ROUND_TRIPS / 2], round_trips[ROUND_TRIPS * 99 / 100]);
    println!("round trip: p50 {median:.0?}, p99 {slow:.0?}");

    let mut stream = sender.dial(&at(&receiver, 9)?).await?;
    let (chunk, begun_at) = (vec![0; 1 << 18], Instant::now());
    while begun_at.elapsed() < SENDING {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await?;
    let bytes = drained.await??;
    let seconds = begun_at.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let gigabits = bytes as f64 * 8.0 / seconds / 1e9;
    println!("{bytes} bytes in {seconds:.2} s: {gigabits:.2} Gbit/s");
    for peer in sender.status().await?.peers {
        println!("{} directly at {:?}", peer.node.name, peer.direct);
    }
    Ok(())
}

async fn join(name: &str) -> Result<Node, Box<dyn Error>> {
    let node = Node::builder().hostname(name).ephemeral(true).build().await?;
    node.up().await?;
    Ok(node)
}

/// A port of a node by address: its name may be one of many.
fn at(node: &Node, port: u16) -> Result<String, Box<dyn Error>> {
    let address = *node.ips().first().ok_or("no address")?;
    Ok(SocketAddr::new(address, port).to_string())
}

/// One byte there and back, again and again, once the direct way is found.
async fn round_trips(sender: &Node, receiver: &Node) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut stream = sender.dial(&at(receiver, 7)?).await?;
    let mut byte = [0];
    stream.write_all(&byte).await?;
    stream.read_exact(&mut byte).await?;
    sleep(Duration::from_secs(1)).await;
    let mut round_trips = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let begun_at = Instant::now();
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await?;
        round_trips.push(begun_at.elapsed());
    }
    Ok(round_trips)
}
