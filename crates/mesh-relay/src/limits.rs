//! What an operator lets clients use, changed at any time.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_derp::{AROUND_PACKET_BYTES, Congestion, PACKET_BYTES_MAX, Rate, TokenBucket};
use tokio::time::{Instant, Sleep, sleep};

use crate::stats::RelayStats;
use crate::writer::WRITE_DEADLINE;

/// Connections that have not logged in, unless somebody says otherwise. Each holds 20 KiB of a request or a login at most,
/// and 16 KiB of a TLS record: some 300 MiB in all. While its answer is not taken, or it is asked whether it is admitted,
/// it holds all that one read has brought instead of the record, up to 80 KiB: 800 MiB in all, at the worst.
pub const PRE_LOGIN_MAX: usize = 8192;

/// Slowest a client can be told to be, in bytes a second: what one read brings is paid for in four seconds.
pub const CLIENT_RATE_MIN: u64 = 16 << 10;

/// Smallest burst of a client, in bytes: the longest frame with a packet. Clients that are told a smaller one never
/// send such a frame.
pub const CLIENT_BURST_MIN: u64 = (AROUND_PACKET_BYTES + PACKET_BYTES_MAX) as u64;

/// What clients may use of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not logged in, over all doors. One more takes the place of the oldest of the address that
    /// has most of them.
    pub pre_login_max: usize,
    /// Connections that are accepted; more of them are closed at once. `None`: any number.
    pub accept: Option<Rate>,
    /// Bytes that each client may send, frames included, at least [`CLIENT_RATE_MIN`] and [`CLIENT_BURST_MIN`]. Who
    /// sends more is read later; relays of the mesh are not held to it. `None`: any number.
    pub client: Option<Rate>,
    /// How long a client may take in nothing of what waits for it; then it is cut.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pre_login_max: PRE_LOGIN_MAX,
            accept: None,
            client: None,
            write_timeout: WRITE_DEADLINE,
        }
    }
}

/// The limits of a relay as they are just now.
#[derive(Debug)]
pub(crate) struct LiveLimits {
    /// Counts the changes, so that nobody looks behind the lock for nothing.
    version: AtomicU64,
    /// [`Limits::write_timeout`], for those that write.
    write_timeout_nanos: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    accept: Option<TokenBucket>,
}

impl Default for LiveLimits {
    fn default() -> Self {
        let state = State::default();
        let write_timeout_nanos = nanos_of(state.limits.write_timeout).into();
        Self { version: AtomicU64::default(), write_timeout_nanos, state: state.into() }
    }
}

impl LiveLimits {
    pub(crate) fn set(&self, limits: Limits) {
        let client = limits.client.map(|rate| Rate {
            per_second: rate.per_second.max(CLIENT_RATE_MIN),
            burst: rate.burst.max(CLIENT_BURST_MIN),
        });
        let mut state = self.lock();
        adjust(&mut state.accept, limits.accept, Instant::now());
        state.limits = Limits { client, ..limits };
        self.write_timeout_nanos.store(nanos_of(limits.write_timeout), Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Limits {
        self.lock().limits
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_nanos(self.write_timeout_nanos.load(Ordering::Relaxed))
    }

    /// Whether one more connection is accepted just now.
    pub(crate) fn accepts(&self) -> bool {
        let now = Instant::now().into_std();
        self.lock().accept.as_mut().is_none_or(|bucket| bucket.try_take(1, now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Brings a bucket to another rate, or does away with it.
fn adjust(bucket: &mut Option<TokenBucket>, rate: Option<Rate>, now: Instant) {
    let now = now.into_std();
    match (bucket.as_mut(), rate) {
        (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
        (None, Some(rate)) => *bucket = Some(TokenBucket::new(rate, now)),
        (_, None) => *bucket = None,
    }
}

/// Holds one client to the rate that there is for each, and back while what it sends is dropped. What it has sent is
/// taken; then it is not read for a while, and TCP holds it back.
#[derive(Debug)]
pub(crate) struct Pace {
    is_exempt: bool,
    /// Of the limits that `bucket` follows.
    version: Option<u64>,
    bucket: Option<TokenBucket>,
    congestion: Congestion,
    /// How long it is to be left alone for the congestion that it makes.
    rest: Duration,
    /// When it is read again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// For a client, or for a relay of the mesh, which `is_exempt`.
    pub(crate) fn new(is_exempt: bool) -> Self {
        Self {
            is_exempt,
            version: None,
            bucket: None,
            congestion: Congestion::default(),
            rest: Duration::ZERO,
            pause: None,
        }
    }

    /// Ready when the client may be read.
    pub(crate) fn poll_ready(
        &mut self,
        limits: &LiveLimits,
        stats: &RelayStats,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.is_exempt {
            return Poll::Ready(());
        }
        self.follow(limits);
        let wait = |bucket: &TokenBucket| bucket.wait(Instant::now().into_std());
        let wait = self.bucket.as_ref().map(wait).unwrap_or_default();
        let rest = mem::take(&mut self.rest);
        for (waits, time) in [(&stats.rate_waits, wait), (&stats.congestion_waits, rest)] {
            if !time.is_zero() {
                waits.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wait = wait.max(rest);
        if wait.is_zero() {
            return Poll::Ready(());
        }
        self.pause.insert(Box::pin(sleep(wait))).as_mut().poll(cx)
    }

    /// Counts what was read, and the bytes of packets that had to go for it.
    pub(crate) fn took(&mut self, bytes: usize, dropped: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(bytes as u64, Instant::now().into_std());
        }
        self.rest = self.congestion.pause(bytes as u64, dropped);
    }

    fn follow(&mut self, limits: &LiveLimits) {
        let version = limits.version.load(Ordering::Acquire);
        if self.version != Some(version) {
            self.version = Some(version);
            adjust(&mut self.bucket, limits.get().client, Instant::now());
        }
    }
}
