//! A chat over UDP: what is typed goes to a peer, what the peer types is shown.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run -p mesh-node --example chat -- ann bob
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run -p mesh-node --example chat -- bob ann
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::net::SocketAddr;

use mesh_node::Node;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tracing_subscriber::EnvFilter;

/// The port on which both talk.
const PORT: u16 = 4242;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [own, other] = &arguments[..] else {
        return Err("say the own name and that of the other".into());
    };
    let node = Node::builder().hostname(own).ephemeral(true).build().await?;
    node.up().await?;
    let address = *node.ips().first().ok_or("the node has no address")?;
    let socket = node.listen_packet(SocketAddr::new(address, PORT))?;
    let mut lines = BufReader::new(stdin()).lines();
    let mut datagram = vec![0; 1 << 16];
    println!("type, and {other} reads");
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                // Looked up for every line: the other may not be there yet.
                Some(line) => match node.resolve(&format!("{other}:{PORT}")).await {
                    Ok(to) => drop(socket.send_to(line.as_bytes(), to).await?),
                    Err(error) => println!("({error})"),
                },
                None => return Ok(()),
            },
            received = socket.recv_from(&mut datagram) => {
                let (length, from) = received?;
                let name = node.who_is(from.ip()).await?.map(|who| who.node.name).unwrap_or_default();
                println!("{name}: {}", String::from_utf8_lossy(&datagram[..length]));
            }
        }
    }
}
