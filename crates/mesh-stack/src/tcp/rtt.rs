//! How long an answer takes, and how long to wait for one.
//!
//! Source: RFC 6298; the floor of the margin is Linux's, for peers may delay acknowledgements as long.

use smoltcp::time::{Duration, Instant};

/// How long to wait before anything is known.
const INITIAL: Duration = Duration::from_secs(1);

/// What is waited beyond the round trip, at least.
const MARGIN_MIN: Duration = Duration::from_millis(200);

/// What is waited beyond two round trips before a probe: the peer answers two segments at once.
const PROBE_MARGIN: Duration = Duration::from_millis(2);

/// The same where only one segment is out, whose acknowledgement the peer may delay.
const PROBE_MARGIN_ALONE: Duration = Duration::from_millis(50);

/// How long to wait at most.
const MAX: Duration = Duration::from_secs(60);

/// An estimate of the round trip.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// How often nothing has come in time.
    expired: u32,
    /// The number behind the segment that is timed, and when it was sent.
    timed: Option<(u64, Instant)>,
}

impl RoundTrip {
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How long to wait for an acknowledgement.
    pub(crate) fn timeout(&self) -> Duration {
        let base = self
            .smoothed
            .map_or(INITIAL, |smoothed| smoothed + (self.variation * 4).max(MARGIN_MIN));
        (base * (1 << self.expired.min(10))).min(MAX)
    }

    /// How long to wait before the peer is asked what is missing, which costs a segment where waiting for
    /// [`timeout`](Self::timeout) costs the window. `None` before anything is known.
    pub(crate) fn probe_timeout(&self, is_alone: bool) -> Option<Duration> {
        let margin = if is_alone { PROBE_MARGIN_ALONE } else { PROBE_MARGIN };
        Some((self.smoothed? * 2 + margin).min(self.timeout()))
    }

    /// Times a segment that is sent for the first time, if none is timed.
    pub(crate) fn note_sent(&mut self, end: u64, now: Instant) {
        self.timed.get_or_insert((end, now));
    }

    /// Times no more: which of two segments is acknowledged could not be told.
    pub(crate) fn note_resent(&mut self) {
        self.timed = None;
    }

    pub(crate) fn note_expired(&mut self) {
        self.expired += 1;
    }

    /// The peer is there, whatever it says.
    pub(crate) fn note_alive(&mut self) {
        self.expired = 0;
    }

    pub(crate) fn note_acknowledged(&mut self, acknowledged: u64, now: Instant) {
        self.expired = 0;
        let Some((_, sent_at)) = self.timed.filter(|(end, _)| *end <= acknowledged) else { return };
        self.timed = None;
        let sample = now - sent_at;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        let error = sample.max(smoothed) - sample.min(smoothed);
        self.variation = (self.variation * 3 + error) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }
}
