//! The end of a relay that others can take over from.
//!
//! No stock client can be told to move: Go's reads the frame for it (Restarting) and does nothing, the Rust client
//! breaks on it. Both act when the connection ends. Go's is back after some 10 ms: it tries the nodes of the region in
//! their order, and the first that takes the connection has it; meanwhile it measures all regions anew, and one
//! whose STUN is silent can cease to be its home. So the doors close first, and then connections end one after
//! the other, which spreads the logins that the relays beside us have to bear.
//!
//! Source: tailscale `wgengine/magicsock/derp.go`, `runDerpReader`; `derp/derphttp/derphttp_client.go`,
//! `dialRegion`; `net/netcheck/netcheck.go`, `addReportHistoryAndSetPreferredDERP`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::relay::Relay;

/// How often some clients are let go.
const STEP: Duration = Duration::from_millis(50);

/// Clients that are let go in a step if there is time for less: some hundred logins a second burden no relay.
const STEP_CLIENTS_MIN: usize = 10;

impl Relay {
    /// Whether the doors are open: the relay is neither drained nor cancelled.
    pub fn is_accepting(&self) -> bool {
        !self.shared.doors.is_cancelled()
    }

    /// Closes all doors, and then lets clients go one after the other, over `within` if they are many. Ends when nobody is
    /// left or the time is over; the relay is still to be cancelled then.
    ///
    /// Connections that another HTTP server hands over are still served: its doors are its own.
    pub async fn drain(&self, within: Duration) {
        self.shared.doors.cancel();
        let deadline = Instant::now() + within;
        loop {
            let keys = self.connected();
            let left = deadline.saturating_duration_since(Instant::now());
            if keys.is_empty() || left.is_zero() {
                return;
            }
            for key in keys.iter().take(share(keys.len(), left)) {
                self.disconnect(key);
            }
            sleep(STEP.min(left)).await;
        }
    }
}

/// How many of `clients` go in this step so that all have gone when `left` is over.
fn share(clients: usize, left: Duration) -> usize {
    let steps = usize::try_from(left.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
    clients.div_ceil(steps.max(1)).max(STEP_CLIENTS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_go_evenly_and_few_at_once() {
        for (clients, seconds, expected) in
            [(1, 5, 10), (1000, 5, 10), (10_000, 5, 100), (10_001, 5, 101), (10_000, 0, 10_000)]
        {
            assert_eq!(
                share(clients, Duration::from_secs(seconds)),
                expected,
                "{clients} {seconds}"
            );
        }
    }
}
