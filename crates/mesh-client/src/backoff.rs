//! How long to wait before the control server is dialled again.
//!
//! Source: tailscale `util/backoff`.

use std::time::Duration;

/// The longest pause, before its jitter.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Unit of the pause, which grows with the square of the failures.
const PAUSE_STEP: Duration = Duration::from_millis(10);

/// The pause after so many failures in a row: n² times 10 ms, half to one and a half times that by `random`, so that
/// clients who failed together do not come back together.
pub fn backoff(failures: u32, random: u32) -> Duration {
    let pause = PAUSE_STEP.saturating_mul(failures.saturating_mul(failures)).min(PAUSE_MAX);
    pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_square_of_the_failures_up_to_a_bound() {
        let longest =
            [0, 1, 10, 100, u32::MAX].map(|failures| backoff(failures, u32::MAX).as_millis());
        assert_eq!(longest, [0, 15, 1500, 45_000, 45_000]);
        assert_eq!(backoff(10, 0), Duration::from_millis(500));
    }
}
