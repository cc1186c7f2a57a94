//! Lets a tailnet reach a service of this machine, and tells who calls.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... \
//!     cargo run -p mesh-node --example proxy -- wiki 80 127.0.0.1:3000
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;

use mesh_node::Node;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [hostname, port, backend] = &arguments[..] else {
        return Err(
            "say the hostname to ask for, the port to listen on, and the service's host:port"
                .into(),
        );
    };
    let node = Node::builder().hostname(hostname).ephemeral(true).build().await?;
    node.up().await?;
    let mut listener = node.listen(port.parse()?)?;
    loop {
        let (mut caller, from) = listener.accept().await?;
        let name = node.who_is(from.ip()).await?.map(|who| who.node.name).unwrap_or_default();
        println!("{name} calls");
        let backend = backend.clone();
        tokio::spawn(async move {
            let mut service = TcpStream::connect(backend).await?;
            copy_bidirectional(&mut caller, &mut service).await
        });
    }
}
