//! The signals that ask a server to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, which both mean the same to us.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over: from here on they end the process no more by themselves.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for `stop`; a signal meanwhile ends the process at once.
    pub(crate) async fn until_stopped(&mut self, stop: impl Future<Output = ()>) {
        tracing::info!("stopping; another signal stops at once");
        tokio::select! {
            biased;
            () = self.next() => {
                tracing::warn!("stopped without waiting");
                std::process::exit(1);
            }
            () = stop => {}
        }
        tracing::info!("stopped");
    }
}
