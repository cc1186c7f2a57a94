//! What is measured at the front door: requests, handshakes, keys, registrations, and who was turned away.
//!
//! [`population`] counts who is in the tailnet.

mod http;
mod population;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::App;
use crate::secrets::{KeyKind, VerifyError};

pub(crate) use http::measure;

/// Labels with values that are known beforehand.
type Labels<const N: usize> = [(&'static str, &'static str); N];

type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// A histogram for each value of some labels.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Shows who is in the tailnet of `app`, and what waits in its queues: counted when somebody asks, at a bounded cost.
pub fn register_population(app: App, registry: &mut Registry) {
    population::register(app, registry);
}

/// Measurements of the front door. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    http: http::HttpMetrics,
    handshakes: Counters<1>,
    handshake_seconds: Histogram,
    key_verifications: Counters<2>,
    key_hash_seconds: Histogram,
    registrations: Counters<2>,
    registration_seconds: Histograms<Labels<1>>,
    policy_reloads: Counters<2>,
}

impl Default for Metrics {
    /// Measurements that nobody reads.
    fn default() -> Self {
        let this = Self {
            http: http::HttpMetrics::default(),
            handshakes: Family::default(),
            handshake_seconds: seconds(),
            key_verifications: Family::default(),
            key_hash_seconds: seconds(),
            registrations: Family::default(),
            registration_seconds: Family::new_with_constructor(seconds),
            policy_reloads: Family::default(),
        };
        this.begin_at_zero();
        this
    }
}

/// From half a millisecond to 16 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

impl Metrics {
    /// Measurements that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        this.http.register(registry);
        registry.register("handshakes", "Noise handshakes", this.handshakes.clone());
        let help = "Time of a handshake, the wait for its turn included";
        registry.register("handshake_seconds", help, this.handshake_seconds.clone());
        let help = "Preauth and API keys that were presented, by what came of it";
        registry.register("key_verifications", help, this.key_verifications.clone());
        let help = "Time to compute the hash of a key, the wait for a core included";
        registry.register("key_hash_seconds", help, this.key_hash_seconds.clone());
        registry.register("registrations", "Register requests", this.registrations.clone());
        let help = "Time to answer a register request";
        registry.register("registration_seconds", help, this.registration_seconds.clone());
        let help = "Policies that were to be put in force";
        registry.register("policy_reload", help, this.policy_reloads.clone());
        this
    }

    /// What has not happened is shown too: a rate wants a beginning.
    fn begin_at_zero(&self) {
        for result in ["ok", "failed"] {
            self.handshakes.get_or_create(&[("result", result)]).inc_by(0);
            for source in [PolicySource::Api, PolicySource::File] {
                self.policy_reloads
                    .get_or_create(&[("result", result), ("source", source.label())])
                    .inc_by(0);
            }
        }
        for method in ["authkey", "interactive"] {
            self.registrations
                .get_or_create(&[("method", method), ("result", "registered")])
                .inc_by(0);
            drop(self.registration_seconds.get_or_create(&[("method", method)]));
        }
        for kind in [KeyKind::Preauth, KeyKind::Api] {
            for outcome in ["remembered", "computed", "malformed", "unknown", "wrong", "busy"] {
                self.key_verifications
                    .get_or_create(&[("kind", kind_label(kind)), ("outcome", outcome)])
                    .inc_by(0);
            }
        }
    }

    pub(crate) fn handshake(&self, is_ok: bool, took: Duration) {
        self.handshakes.get_or_create(&[("result", result(is_ok))]).inc();
        self.handshake_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn key_presented(&self, kind: KeyKind, verdict: Result<Proof, VerifyError>) {
        let outcome = match verdict {
            Ok(Proof::Remembered) => "remembered",
            Ok(Proof::Computed) => "computed",
            Err(VerifyError::Malformed) => "malformed",
            Err(VerifyError::UnknownKey) => "unknown",
            Err(VerifyError::WrongSecret) => "wrong",
            Err(VerifyError::Busy) => "busy",
        };
        let labels = [("kind", kind_label(kind)), ("outcome", outcome)];
        self.key_verifications.get_or_create(&labels).inc();
    }

    pub(crate) fn key_hashed(&self, took: Duration) {
        self.key_hash_seconds.observe(took.as_secs_f64());
    }

    /// A register request was answered. How long a person took to approve a login says nothing about us, so only
    /// requests that wait for nobody are timed.
    pub(crate) fn registered(&self, method: &'static str, result: &'static str, took: Duration) {
        self.registrations.get_or_create(&[("method", method), ("result", result)]).inc();
        if method != "followup" {
            self.registration_seconds
                .get_or_create(&[("method", method)])
                .observe(took.as_secs_f64());
        }
    }

    /// A policy was to be put in force, and was or was not.
    pub fn policy_reloaded(&self, source: PolicySource, is_ok: bool) {
        let labels = [("result", result(is_ok)), ("source", source.label())];
        self.policy_reloads.get_or_create(&labels).inc();
    }
}

fn result(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "failed" }
}

const fn kind_label(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Preauth => "preauth",
        KeyKind::Api => "api",
    }
}

/// How a key was found to be right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    /// It was verified before.
    Remembered,
    /// Its hash was computed, by this request or by one that came with the same key at the same time.
    Computed,
}

/// Where a policy came from.
#[derive(Debug, Clone, Copy)]
pub enum PolicySource {
    /// The admin API.
    Api,
    /// The file that is followed.
    File,
}

impl PolicySource {
    const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::File => "file",
        }
    }
}
