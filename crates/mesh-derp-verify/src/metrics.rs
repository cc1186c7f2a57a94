//! The counters as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::VerifyStats;

/// Shows what is counted, as it stands whenever somebody asks.
pub fn register(stats: Arc<VerifyStats>, registry: &mut Registry) {
    registry.register_collector(Box::new(VerifyCollector(stats)));
}

#[derive(Debug)]
struct VerifyCollector(Arc<VerifyStats>);

impl Collector for VerifyCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &*self.0;
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let asked = "Clients that the relay asked its verify URL about";
        show("derp_verify", asked, &results(stats))?;
        let following = ConstGauge::new(i64::from(stats.is_following()));
        show("derp_verify_following", "Whether the list of nodes is up to date", &following)?;
        let nodes = ConstGauge::new(load(&stats.nodes).cast_signed());
        show("derp_verify_nodes", "Nodes on the control server's list", &nodes)?;
        let cuts = ConstCounter::new(load(&stats.cuts));
        show("derp_verify_cuts", "Connections cut because their node left the list", &cuts)?;
        let interruptions = ConstCounter::new(load(&stats.interruptions));
        let help = "How often following the list has ended or could not begin";
        show("derp_verify_interruptions", help, &interruptions)
    }
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn results(stats: &VerifyStats) -> Family<[(&'static str, &'static str); 1], Counter> {
    let family = Family::<_, Counter>::default();
    for (result, counter) in
        [("allowed", &stats.allowed), ("denied", &stats.denied), ("unanswered", &stats.unanswered)]
    {
        family.get_or_create(&[("result", result)]).inc_by(load(counter));
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_shown() {
        let stats = Arc::<VerifyStats>::default();
        stats.denied.store(2, Ordering::Relaxed);
        stats.nodes.store(3, Ordering::Relaxed);
        stats.cuts.store(4, Ordering::Relaxed);
        stats.interruptions.store(5, Ordering::Relaxed);
        stats.is_following.store(true, Ordering::Relaxed);
        let mut registry = Registry::default();
        register(stats, &mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "derp_verify_total{result=\"allowed\"} 0",
            "derp_verify_total{result=\"denied\"} 2",
            "derp_verify_total{result=\"unanswered\"} 0",
            "derp_verify_following 1",
            "derp_verify_nodes 3",
            "derp_verify_cuts_total 4",
            "derp_verify_interruptions_total 5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    }
}
