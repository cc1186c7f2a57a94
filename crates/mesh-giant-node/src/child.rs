//! The handle of the control server's process.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::control::{ASK_PROCESSOR_TIME, STEP};

/// The process. It ends with this handle.
#[derive(Debug)]
pub(crate) struct ControlProcess {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where nodes reach it.
    pub(crate) url: String,
}

impl ControlProcess {
    /// Starts a control server whose first map has so many peers.
    pub(crate) async fn spawn(nodes: u32) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program)
            .args(["control", &nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no input of the control server")?;
        let answers = child.stdout.take().context("no output of the control server")?;
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

    /// How much processor time it has used.
    pub(crate) async fn processor_time(&mut self) -> Result<Duration> {
        self.orders.write_all(&[ASK_PROCESSOR_TIME]).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Duration> {
        let line = self.answers.next_line().await?.context("control server is gone")?;
        Ok(Duration::from_nanos(line.parse()?))
    }
}
