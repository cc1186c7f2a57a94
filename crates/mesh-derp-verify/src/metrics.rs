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

use crate::{Verifier, VerifyStats};

/// Shows what is counted, as it stands whenever somebody asks. What only the other way to verify counts is left out: a
/// zero would say that the list is not followed.
pub fn register(verifier: &Verifier, registry: &mut Registry) {
    let stats = Arc::clone(verifier.stats());
    let collector: Box<dyn Collector> = if verifier.follows_a_list() {
        Box::new(ListCollector(stats))
    } else {
        Box::new(UrlCollector(stats))
    };
    registry.register_collector(collector);
}

#[derive(Debug)]
struct UrlCollector(Arc<VerifyStats>);

impl Collector for UrlCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let results = results(&self.0);
        let help = "Clients that the relay asked its verify URL about";
        let kind = results.metric_type();
        results.encode(encoder.encode_descriptor("derp_verify", help, None, kind)?)
    }
}

#[derive(Debug)]
struct ListCollector(Arc<VerifyStats>);

impl Collector for ListCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &*self.0;
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
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
    use crate::{Asks, Options};

    /// Checks what is shown of a verifier for which `count` has counted.
    fn check(asks: Asks, count: impl FnOnce(&VerifyStats), expected: &[&str]) {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let verifier = Verifier::new(Options { asks, fail_open: false }).unwrap();
        count(verifier.stats());
        let mut registry = Registry::default();
        register(&verifier, &mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let mut shown: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        shown.sort_unstable();
        assert_eq!(shown, expected);
    }

    #[tokio::test]
    async fn of_a_url_its_answers_are_shown() {
        check(
            Asks::Url("http://192.0.2.1/verify".to_owned()),
            |stats| stats.denied.store(2, Ordering::Relaxed),
            &[
                "derp_verify_total{result=\"allowed\"} 0",
                "derp_verify_total{result=\"denied\"} 2",
                "derp_verify_total{result=\"unanswered\"} 0",
            ],
        );
    }

    #[tokio::test]
    async fn of_a_list_it_is_shown_how_it_is_followed() {
        check(
            Asks::ControlSocket("/run/control.sock".into()),
            |stats| {
                stats.nodes.store(3, Ordering::Relaxed);
                stats.cuts.store(4, Ordering::Relaxed);
                stats.interruptions.store(5, Ordering::Relaxed);
                stats.is_following.store(true, Ordering::Relaxed);
            },
            &[
                "derp_verify_cuts_total 4",
                "derp_verify_following 1",
                "derp_verify_interruptions_total 5",
                "derp_verify_nodes 3",
            ],
        );
    }
}
