//! Bundled nodes in scenarios.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::Server;
use mesh_node::{Builder, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};
use tokio::time::timeout;

/// How long a connection may take to be made, or a transfer.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);

/// A node that ends with its handle joins with a preauth key.
pub(crate) async fn join(server: &Server<'_>, name: &str, key: &str) -> Result<Node> {
    up(builder(server, name, key).ephemeral(true)).await
}

/// A node that keeps its keys in a directory joins with a preauth key, or comes back.
pub(crate) async fn join_in(
    server: &Server<'_>,
    name: &str,
    key: &str,
    directory: &Path,
) -> Result<Node> {
    up(builder(server, name, key).state_dir(directory)).await
}

fn builder(server: &Server<'_>, name: &str, key: &str) -> Builder {
    Node::builder().control_url(server.url()).auth_key(key).hostname(name)
}

async fn up(builder: Builder) -> Result<Node> {
    let node = builder.build().await?;
    timeout(EXCHANGE_MAX, node.up()).await.context("node does not come up")??;
    Ok(node)
}

/// Sends back what comes to port 7.
pub(crate) fn serve_echo(node: &Node) -> Result<()> {
    let mut listener = node.listen(7)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = split(stream);
                copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    Ok(())
}

/// Sends bytes to an echo server and gets them back.
pub(crate) async fn exchange(node: &Node, to: &str, bytes: usize) -> Result<()> {
    timeout(EXCHANGE_MAX, do_exchange(node, to, bytes)).await.context("exchange takes too long")?
}

async fn do_exchange(node: &Node, to: &str, bytes: usize) -> Result<()> {
    let content: Vec<u8> = (0_u8..251).cycle().take(bytes).collect();
    let mut received = vec![0; bytes];
    let (mut read, mut write) = split(node.dial(to).await?);
    let send = async {
        write.write_all(&content).await?;
        write.shutdown().await
    };
    tokio::try_join!(send, read.read_exact(&mut received))?;
    ensure!(content == received, "what came back is not what was sent");
    Ok(())
}
