//! Clients that open map streams and then read nothing, while their connections stay open.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mesh_client::Dialer;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::crowd::Joined;

/// How many of them are on their way in at the same time.
const JOINING_MAX: usize = 16;

/// Stalled clients. Their sockets are nobody's to read until this is dropped, which closes them.
#[derive(Debug)]
pub struct Stalled {
    release: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stalled {
    /// Has clients join with a reusable preauth key and open their map streams, uncompressed, before they stall.
    pub async fn join(dialer: &Dialer, key: &str, prefix: &str, clients: usize) -> Result<Self> {
        let (release, released) = mpsc::channel();
        let (ready, is_ready) = oneshot::channel();
        let (dialer, key, prefix) = (dialer.clone(), key.to_owned(), prefix.to_owned());
        let thread = thread::spawn(move || {
            // A runtime of one thread whose tasks run only while something is waited for in it.
            let runtime = Builder::new_current_thread().enable_all().build();
            let joined = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                let joined = runtime.block_on(async {
                    let names = (0..clients).map(|number| format!("{prefix}-{number}"));
                    let join = async |name: String| Joined::join(&dialer, &key, &name, "").await;
                    let joining = stream::iter(names).map(join).buffered(JOINING_MAX);
                    joining.try_collect::<Vec<_>>().await
                })?;
                Ok((runtime, joined))
            });
            let told = ready.send(joined.as_ref().map(drop).map_err(|error| format!("{error:#}")));
            if told.is_ok() && joined.is_ok() {
                // Ends when the other end is dropped.
                let _ = released.recv();
            }
        });
        is_ready.await.context("the stalled clients' thread ended")?.map_err(anyhow::Error::msg)?;
        Ok(Self { release: Some(release), thread: Some(thread) })
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told when it happened.
            let _ = thread.join();
        }
    }
}
