//! The relay's counters as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_derp::{DropReason, PacketKind, Tally};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::refusal::Refusal;
use crate::stats::{PacketCounters, RelayStats};

/// Shows what a relay counts, as it stands whenever somebody asks.
pub fn register(stats: Arc<RelayStats>, registry: &mut Registry) {
    registry.register_collector(Box::new(RelayCollector(stats)));
}

/// One or two labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

#[derive(Debug)]
struct RelayCollector(Arc<RelayStats>);

impl Collector for RelayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &*self.0;
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let connections = ConstCounter::new(load(&stats.connections));
        show("derp_connections", "Connections that reached the relay", &connections)?;
        let websockets = ConstCounter::new(load(&stats.websockets));
        show("derp_websockets", "Connections that became a WebSocket", &websockets)?;
        let refused = Refusal::ALL.map(|reason| (reason.label(), stats.refused(reason)));
        let refused = split("reason", refused);
        show("derp_refused_connections", "Connections that the relay ended", &refused)?;
        let logins =
            split("result", [("admitted", &stats.logins), ("refused", &stats.logins_refused)]);
        show("derp_logins", "Clients that proved their key", &logins)?;
        show("derp_clients", "Clients connected to the relay", &clients(stats))?;
        let packets = relayed(stats, |tally| tally.packets);
        show("derp_packets", "Packets that the relay got from clients or sent to them", &packets)?;
        let bytes = relayed(stats, |tally| tally.bytes);
        show("derp_bytes", "Payload of the packets that the relay got or sent", &bytes)?;
        let peers = ConstGauge::new(load(&stats.mesh_peers).cast_signed());
        show("derp_mesh_peers", "Other relays of the mesh that this one is connected to", &peers)?;
        let mesh = across(&stats.received_forwarded, &stats.forwarded);
        show("derp_mesh_packets", "Packets from and to other relays of the mesh", &mesh)?;
        show("derp_dropped_packets", "Packets that the relay did not deliver", &dropped(stats))?;
        let timeouts = ConstCounter::new(load(&stats.write_timeouts));
        show("derp_write_timeouts", "Connections cut because they took no bytes", &timeouts)?;
        let waits =
            split("reason", [("rate", &stats.rate_waits), ("congestion", &stats.congestion_waits)]);
        show("derp_waits", "Times that a client was not read for a while", &waits)?;
        let stun =
            split("result", [("answered", &stats.stun_answered), ("ignored", &stats.stun_ignored)]);
        show("stun_requests", "Datagrams to the STUN port", &stun)
    }
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

/// Counters that together are one metric.
fn split<const N: usize>(
    label: &'static str,
    values: [(&'static str, &AtomicU64); N],
) -> Family<Labels<1>, Counter> {
    let family = Family::<Labels<1>, Counter>::default();
    for (value, counter) in values {
        family.get_or_create(&[(label, value)]).inc_by(load(counter));
    }
    family
}

/// The two gauges are read one after the other, so their difference may be off by who came between.
fn clients(stats: &RelayStats) -> Family<Labels<1>, Gauge> {
    let home = load(&stats.home_clients);
    let others = load(&stats.clients).saturating_sub(home);
    let family = Family::<Labels<1>, Gauge>::default();
    for (label, clients) in [("true", home), ("false", others)] {
        family.get_or_create(&[("home", label)]).set(clients.cast_signed());
    }
    family
}

/// What came in and went out.
fn relayed(stats: &RelayStats, of: fn(Tally) -> u64) -> Family<Labels<2>, Counter> {
    let family = Family::default();
    add(&family, ("direction", "received"), &stats.received, of);
    add(&family, ("direction", "sent"), &stats.sent, of);
    family
}

/// What came from other relays and went there.
fn across(received: &PacketCounters, sent: &PacketCounters) -> Family<Labels<2>, Counter> {
    let family = Family::default();
    add(&family, ("direction", "received"), received, |tally| tally.packets);
    add(&family, ("direction", "sent"), sent, |tally| tally.packets);
    family
}

fn dropped(stats: &RelayStats) -> Family<Labels<2>, Counter> {
    let family = Family::default();
    for reason in DropReason::ALL {
        add(&family, ("reason", reason.label()), stats.dropped(reason), |tally| tally.packets);
    }
    family
}

fn add(
    family: &Family<Labels<2>, Counter>,
    label: (&'static str, &'static str),
    counters: &PacketCounters,
    of: fn(Tally) -> u64,
) {
    for kind in PacketKind::ALL {
        let name = match kind {
            PacketKind::Disco => "disco",
            PacketKind::Data => "data",
        };
        family.get_or_create(&[label, ("kind", name)]).inc_by(of(counters.get(kind)));
    }
}

#[cfg(test)]
mod tests;
