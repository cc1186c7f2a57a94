//! How old the DERP map is, as a metric.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// When the source of the DERP map was read that has gone without the longest, unless nobody reads them again. Clones
/// share it.
#[derive(Debug, Clone)]
pub(crate) struct MapAge(Arc<Mutex<Option<Instant>>>);

impl MapAge {
    pub(super) fn new(read_at: Option<Instant>) -> Self {
        Self(Arc::new(Mutex::new(read_at)))
    }

    pub(super) fn set(&self, read_at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(read_at);
    }

    pub(super) fn read_at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the age as it is whenever somebody asks.
    pub(crate) fn register(self, registry: &mut Registry) {
        registry.register_collector(Box::new(self));
    }
}

impl Collector for MapAge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read_at) = self.read_at() else { return Ok(()) };
        let age = ConstGauge::new(read_at.elapsed().as_secs_f64());
        let help = "Time since all files and URLs of the DERP map could be read and put together";
        age.encode(encoder.encode_descriptor(
            "derp_map_age_seconds",
            help,
            None,
            age.metric_type(),
        )?)
    }
}
