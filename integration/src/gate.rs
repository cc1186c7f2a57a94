//! A gate in front of a TCP server, which can be shut to those who come, while those who are in stay.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A gate, open until it is shut or dropped. Who went through it before is let through to the end.
#[derive(Debug)]
pub(crate) struct Gate {
    port: u16,
    keeper: JoinHandle<()>,
}

impl Gate {
    /// A gate at a port of its own, which leads to `target`.
    pub(crate) async fn open(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let keeper = tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut inside = TcpStream::connect(target).await?;
                    copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Ok(Self { port, keeper })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Refuses whoever comes from here on.
    pub(crate) fn shut(&mut self) {
        self.keeper.abort();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
    }
}
