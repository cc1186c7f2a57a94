//! What is logged about a database that is away: its beginning, that it lasts, and its end.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is said that an outage lasts.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Whether the database takes batches.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// When it began, and when it was last told of.
    times: Option<(Instant, Instant)>,
}

impl Outage {
    /// A batch was not taken: tells of the first, and then now and again.
    pub(crate) fn goes_on(&mut self, error: &(dyn std::error::Error + 'static)) {
        let now = Instant::now();
        let (began_at, told_at) = self.times.unwrap_or((now, now));
        let is_first = self.times.is_none();
        if !is_first && now - told_at < TOLD_EVERY {
            return;
        }
        self.times = Some((began_at, now));
        tracing::error!(
            error = error_chain(error),
            outage_ms = (now - began_at).as_millis(),
            "the database does not take changes: nothing can register or be edited until it does; maps are served"
        );
    }

    /// Whether the last batch was not taken.
    pub(crate) fn is_on(&self) -> bool {
        self.times.is_some()
    }

    /// A batch was taken.
    pub(crate) fn ends(&mut self) {
        if let Some((began_at, _)) = self.times.take() {
            let outage_ms = began_at.elapsed().as_millis();
            tracing::info!(outage_ms, "the database takes changes again");
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
