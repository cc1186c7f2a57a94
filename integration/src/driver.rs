//! A driver process: requests in, replies out, matched by id.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

use crate::log;

/// How many lines of a driver's log explain its end.
const LOG_LINES: usize = 20;

/// A running driver. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Driver {
    process: AsyncMutex<Child>,
    stdin: AsyncMutex<ChildStdin>,
    waiting: Arc<Mutex<Waiting>>,
    log: PathBuf,
}

/// Who waits for which reply.
#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    replies: HashMap<u64, oneshot::Sender<Reply>>,
}

#[derive(Debug, Deserialize)]
struct Reply {
    id: u64,
    ok: bool,
    error: Option<String>,
    #[serde(default)]
    result: Value,
}

impl Driver {
    /// Starts a driver; what it logs goes to the file `log`.
    pub(crate) fn spawn(program: &str, environment: &[(&str, String)], log: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let log_file = File::options().create(true).append(true).open(log)?;
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let stdin = process.stdin.take().context("invariant: stdin is piped")?;
        let stdout = process.stdout.take().context("invariant: stdout is piped")?;
        let waiting = Arc::default();
        tokio::spawn(deliver(stdout, Arc::clone(&waiting)));
        Ok(Self {
            process: AsyncMutex::new(process),
            stdin: AsyncMutex::new(stdin),
            waiting,
            log: log.to_owned(),
        })
    }

    /// Runs one command and returns its result.
    pub(crate) async fn call(
        &self,
        cmd: &str,
        args: impl Serialize,
        deadline: Duration,
    ) -> Result<Value> {
        let (id, reply) = lock(&self.waiting).register();
        let request = json!({"id": id, "cmd": cmd, "args": args});
        let answered = async {
            self.stdin.lock().await.write_all(format!("{request}\n").as_bytes()).await?;
            anyhow::Ok(reply.await?)
        };
        let reply = timeout(deadline, answered)
            .await
            .map_err(|_| anyhow!("{cmd}: no reply within {deadline:?}"))?
            .map_err(|_| {
                let told = log::tail(&self.log, LOG_LINES);
                anyhow!("{cmd}: the driver ended; its last words:\n{told}")
            })?;
        if !reply.ok {
            bail!("{cmd}: {}", reply.error.unwrap_or_default());
        }
        Ok(reply.result)
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&self, deadline: Duration) -> Result<()> {
        let mut process = self.process.lock().await;
        timeout(deadline, process.wait()).await.context("the driver does not end")??;
        Ok(())
    }
}

impl Waiting {
    fn register(&mut self) -> (u64, oneshot::Receiver<Reply>) {
        self.last_id += 1;
        let (sender, receiver) = oneshot::channel();
        self.replies.insert(self.last_id, sender);
        (self.last_id, receiver)
    }
}

/// Hands replies to those who wait; when the driver ends, they hear that nothing will come.
async fn deliver(stdout: ChildStdout, waiting: Arc<Mutex<Waiting>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(reply) = serde_json::from_str::<Reply>(&line) else { break };
        if let Some(sender) = lock(&waiting).replies.remove(&reply.id) {
            drop(sender.send(reply));
        }
    }
    lock(&waiting).replies.clear();
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
