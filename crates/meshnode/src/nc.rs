//! `meshnode nc`.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, stdin, stdout};

use crate::client::LocalClient;

#[derive(Debug, Args)]
pub(crate) struct NcArgs {
    /// The peer's name or address
    peer: String,
    /// The port
    #[arg(value_parser = RangedU64ValueParser::<u16>::new().range(1..))]
    port: u16,
}

impl NcArgs {
    pub(crate) async fn run(self, client: &LocalClient) -> anyhow::Result<()> {
        let peer = client.dial(&self.peer, self.port).await?;
        Ok(join(peer, stdin(), stdout()).await?)
    }
}

/// Copies both ways until the peer has nothing more to say. That the input ends is told to the peer.
async fn join(
    peer: impl AsyncRead + AsyncWrite,
    mut input: impl AsyncRead + Unpin,
    mut out: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let (mut from_peer, mut to_peer) = tokio::io::split(peer);
    let send = async {
        copy(&mut input, &mut to_peer).await?;
        to_peer.shutdown().await
    };
    let receive = async {
        copy(&mut from_peer, &mut out).await?;
        out.flush().await
    };
    tokio::pin!(receive);
    tokio::select! {
        received = &mut receive => received,
        // A peer that takes nothing more may still have something to say.
        _ = send => receive.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex, empty};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_heard_after_the_input_has_ended() {
        let (peer, mut end) = duplex(64);
        let answering = tokio::spawn(async move {
            let mut asked = String::new();
            end.read_to_string(&mut asked).await.unwrap();
            end.write_all(asked.to_uppercase().as_bytes()).await.unwrap();
        });
        let mut heard = Vec::new();
        join(peer, &b"hello"[..], &mut heard).await.unwrap();
        assert_eq!(heard, b"HELLO");
        answering.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_ends_it_though_the_input_goes_on() {
        let (peer, mut end) = duplex(64);
        let (input, _still_open) = duplex(64);
        end.write_all(b"bye").await.unwrap();
        drop(end);
        let mut heard = Vec::new();
        join(peer, input, &mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }

    #[tokio::test]
    async fn without_input_the_peer_is_heard() {
        let (peer, mut end) = duplex(64);
        end.write_all(b"banner").await.unwrap();
        drop(end);
        let mut heard = Vec::new();
        join(peer, empty(), &mut heard).await.unwrap();
        assert_eq!(heard, b"banner");
    }
}
