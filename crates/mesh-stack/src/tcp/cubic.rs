//! How much may be under way.
//!
//! Source: RFC 9438 (CUBIC), RFC 5681 (slow start), RFC 6928 (initial window).

use smoltcp::time::{Duration, Instant};

/// Segments under way at first.
const INITIAL_SEGMENTS: usize = 10;

/// RFC 9438's C, in segments per cubic second.
const SCALE: f64 = 0.4;

/// What of the window stays after a loss.
const BETA: f64 = 0.7;

/// How much faster than one segment per round trip a Reno that keeps as much would have to be.
const RENO_ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The congestion window, in bytes.
#[derive(Debug)]
pub(crate) struct Cubic {
    segment: f64,
    window: f64,
    threshold: f64,
    /// The window before the last loss.
    before_loss: f64,
    epoch: Option<Epoch>,
}

/// Growth since a loss.
#[derive(Debug)]
struct Epoch {
    begun_at: Instant,
    /// Seconds until the window is where it was.
    until_origin: f64,
    origin: f64,
    reno: f64,
}

impl Cubic {
    pub(crate) fn new(segment_bytes: usize) -> Self {
        let segment = float(segment_bytes);
        Self {
            segment,
            window: segment * float(INITIAL_SEGMENTS),
            threshold: f64::INFINITY,
            before_loss: 0.0,
            epoch: None,
        }
    }

    /// Bytes that may be under way.
    pub(crate) fn window(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive and bounded"
        )]
        let window = self.window as usize;
        window
    }

    /// Grows, at most to `most`.
    pub(crate) fn note_acknowledged(
        &mut self,
        bytes: usize,
        round_trip: Duration,
        now: Instant,
        most: usize,
    ) {
        let bytes = float(bytes);
        if self.window < self.threshold {
            self.window += bytes;
        } else {
            self.window += self.growth(bytes, round_trip, now);
        }
        self.window = self.window.min(float(most)).max(self.segment);
    }

    fn growth(&mut self, bytes: f64, round_trip: Duration, now: Instant) -> f64 {
        let (window, before_loss, segment) = (self.window, self.before_loss, self.segment);
        let epoch = self.epoch.get_or_insert_with(|| {
            let missing = (before_loss - window).max(0.0);
            Epoch {
                begun_at: now,
                until_origin: (missing / segment / SCALE).cbrt(),
                origin: before_loss.max(window),
                reno: window,
            }
        });
        epoch.reno += RENO_ALPHA * segment * bytes / window;
        let elapsed = seconds(now - epoch.begun_at + round_trip);
        let distance = elapsed - epoch.until_origin;
        let cubic = epoch.origin + SCALE * segment * distance * distance * distance;
        let target = cubic.max(epoch.reno).clamp(window, window * 1.5);
        (target - window) * bytes / window
    }

    /// Something was lost.
    pub(crate) fn note_loss(&mut self) {
        let is_shrinking = self.window < self.before_loss;
        self.before_loss = self.window * if is_shrinking { f64::midpoint(1.0, BETA) } else { 1.0 };
        self.window = (self.window * BETA).max(2.0 * self.segment);
        self.threshold = self.window;
        self.epoch = None;
    }

    /// Nothing has come for long.
    pub(crate) fn note_timeout(&mut self) {
        self.note_loss();
        self.window = self.segment;
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of windows are far below 2^52")]
fn float(bytes: usize) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_precision_loss, reason = "so are microseconds of a connection")]
fn seconds(duration: Duration) -> f64 {
    duration.total_micros() as f64 / 1e6
}
