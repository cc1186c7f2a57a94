//! The handle of a control server: in a process of its own, or in this one.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines, duplex,
};
use tokio::process::{Child, Command};

use crate::control::{self, ASK_PROCESSOR_TIME, STEP};

/// Room for orders or answers on their way to a server in this process, in bytes.
const PIPE_BYTES: usize = 4096;

/// The server. It ends with this handle.
pub(crate) struct ControlHandle {
    _child: Option<Child>,
    orders: Box<dyn AsyncWrite + Send + Unpin>,
    answers: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    /// Where nodes reach it.
    pub(crate) url: String,
}

impl ControlHandle {
    /// Starts a process with a control server whose first map has so many peers.
    pub(crate) async fn spawn_process(nodes: u32) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program)
            .args(["control", &nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no input of the control server")?;
        let answers = child.stdout.take().context("no output of the control server")?;
        Self::new(Some(child), Box::new(orders), Box::new(answers)).await
    }

    /// Starts such a server as tasks of this process, which has to share its processors and its processor time.
    pub(crate) async fn spawn_tasks(nodes: u32) -> Result<Self> {
        let (orders, taken) = duplex(PIPE_BYTES);
        let (answers, said) = duplex(PIPE_BYTES);
        tokio::spawn(async move {
            if let Err(error) = control::run(nodes, taken, said).await {
                tracing::error!(error = &*error as &dyn std::error::Error, "no control server");
            }
        });
        Self::new(None, Box::new(orders), Box::new(answers)).await
    }

    async fn new(
        child: Option<Child>,
        orders: Box<dyn AsyncWrite + Send + Unpin>,
        answers: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<Self> {
        let mut answers = BufReader::new(answers).lines();
        let url = answers.next_line().await?.context("control server does not start")?;
        Ok(Self { _child: child, orders, answers, url })
    }

    /// When the first byte of the first map left, by the clock that all processes share.
    pub(crate) async fn map_began_at(&mut self) -> Result<Duration> {
        self.answer().await
    }

    /// Has it say that the next peer has come and the one before has gone.
    pub(crate) async fn step(&mut self) -> Result<()> {
        Ok(self.orders.write_all(&[STEP]).await?)
    }

    /// How much processor time its process has used.
    pub(crate) async fn processor_time(&mut self) -> Result<Duration> {
        self.orders.write_all(&[ASK_PROCESSOR_TIME]).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Duration> {
        let line = self.answers.next_line().await?.context("control server is gone")?;
        Ok(Duration::from_nanos(line.parse()?))
    }
}
