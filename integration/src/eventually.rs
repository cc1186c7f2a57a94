//! Waiting for a thing to become true, without sleeping for luck.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two questions; short beside every deadline that a scenario judges.
const PAUSE: Duration = Duration::from_millis(30);

/// Asks again and again until the answer is `Ok`, and returns it.
///
/// # Errors
/// When `deadline` has passed: what was waited for, and why it was not so when asked last.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow::anyhow!("the first question was not answered");
    loop {
        match timeout_at(end, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => break,
        }
        if Instant::now() + PAUSE >= end {
            break;
        }
        sleep(PAUSE).await;
    }
    Err(last).with_context(|| format!("not within {deadline:?}: {what}"))
}

#[cfg(test)]
mod tests;
