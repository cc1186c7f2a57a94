//! What the writer measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::PersistError;

/// Counters by one label.
type ByKind = Family<[(&'static str, &'static str); 1], Counter>;

/// Measurements of a [`Writer`](crate::Writer). Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    queue_seconds: Histogram,
    batch_intents: Histogram,
    apply_seconds: Histogram,
    compile_seconds: Histogram,
    commit_seconds: Histogram,
    publish_seconds: Histogram,
    conflicts: Counter,
    unavailable: Counter,
    errors: ByKind,
}

impl Default for Metrics {
    /// Measurements that nobody reads.
    fn default() -> Self {
        let errors = ByKind::default();
        let kind = |kind| errors.get_or_create_owned(&[("kind", kind)]);
        Self {
            queue_seconds: seconds(),
            batch_intents: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            apply_seconds: seconds(),
            compile_seconds: seconds(),
            commit_seconds: seconds(),
            publish_seconds: seconds(),
            conflicts: kind("conflict"),
            unavailable: kind("unavailable"),
            errors,
        }
    }
}

/// From a tenth of a millisecond to three seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 16))
}

impl Metrics {
    /// Measurements that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "db_queue_seconds",
            "Wait of the oldest command of each batch",
            this.queue_seconds.clone(),
        );
        registry.register("db_batch_intents", "Commands in each batch", this.batch_intents.clone());
        registry.register(
            "db_commit_seconds",
            "Time that the database takes for each batch",
            this.commit_seconds.clone(),
        );
        registry.register(
            "db_errors",
            "Batches that the database refused or could not take",
            this.errors.clone(),
        );
        registry.register(
            "store_apply_seconds",
            "Time to decide each batch",
            this.apply_seconds.clone(),
        );
        registry.register(
            "store_publish_seconds",
            "Time to build and publish the snapshot of each batch",
            this.publish_seconds.clone(),
        );
        registry.register(
            "policy_compile_seconds",
            "Time to put a policy in force: compile it, run its tests, compare it with the last",
            this.compile_seconds.clone(),
        );
        this
    }

    pub(crate) fn took_batch(&self, commands: usize, oldest: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "batches are small")]
        self.batch_intents.observe(commands as f64);
        self.queue_seconds.observe(oldest.elapsed().as_secs_f64());
    }

    pub(crate) fn applied(&self, since: Instant) {
        self.apply_seconds.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn compiled(&self, since: Instant) {
        self.compile_seconds.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn committed(&self, since: Instant) {
        self.commit_seconds.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn published(&self, since: Instant) {
        self.publish_seconds.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn failed(&self, error: &PersistError) {
        match error {
            PersistError::Conflict { .. } | PersistError::Overtaken => self.conflicts.inc(),
            PersistError::Unavailable(_) => self.unavailable.inc(),
        };
    }
}
