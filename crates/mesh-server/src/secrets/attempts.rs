//! Failed attempts at keys, counted by source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_relay::network;
use tokio::time::Instant;

use super::VerifyError;

/// How many keys that do not exist a source may present in a [`WINDOW`].
pub const UNKNOWN_KEYS_MAX: u32 = 10;

/// How many wrong secrets of keys that exist a source may present in a [`WINDOW`].
pub const WRONG_SECRETS_MAX: u32 = 5;

/// After this long all is forgotten.
const WINDOW: Duration = Duration::from_mins(1);

/// How many sources are told apart in a [`WINDOW`]. More are not counted: secrets are too long to guess and
/// the work they cause is bounded elsewhere, so the count only keeps a single source quiet.
const SOURCES_MAX: usize = 16_384;

/// Counts failed attempts at keys by source, to turn away who has had enough of them.
#[derive(Debug)]
pub struct Attempts {
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began_at: Instant,
    failures: HashMap<IpAddr, Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    unknown_keys: u32,
    wrong_secrets: u32,
}

impl Attempts {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        let window = Window { began_at: Instant::now(), failures: HashMap::new() };
        Self { window: Mutex::new(window) }
    }

    /// How long a source has to wait before its next attempt; `None` if it may try.
    pub fn wait(&self, source: IpAddr) -> Option<Duration> {
        self.with_window(|window| {
            let failures = window.failures.get(&network(source))?;
            let is_exhausted = failures.unknown_keys >= UNKNOWN_KEYS_MAX
                || failures.wrong_secrets >= WRONG_SECRETS_MAX;
            is_exhausted.then(|| WINDOW.saturating_sub(window.began_at.elapsed()))
        })
    }

    /// Counts what went wrong with an attempt of this source.
    pub fn record(&self, source: IpAddr, error: VerifyError) {
        self.with_window(|window| {
            let source = network(source);
            if window.failures.len() >= SOURCES_MAX && !window.failures.contains_key(&source) {
                return;
            }
            let failures = window.failures.entry(source).or_default();
            match error {
                VerifyError::Malformed | VerifyError::UnknownKey => failures.unknown_keys += 1,
                VerifyError::WrongSecret => failures.wrong_secrets += 1,
                VerifyError::Busy => {}
            }
        });
    }

    fn with_window<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began_at.elapsed() >= WINDOW {
            *window = Window { began_at: Instant::now(), failures: HashMap::new() };
        }
        act(&mut window)
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new()
    }
}
