//! What is told of a measurement.

use serde::Serialize;

use crate::engine::{Engine, Measured};
use crate::poller::{LANES, Lane};
use crate::traffic::Tally;

/// From this share of the time on in which it has something to do, the bench itself is the limit.
const LIMIT_SHARE: f64 = 0.97;

/// An open loop that offers less of what it should is too slow.
const OFFERED_SHARE: f64 = 0.97;

/// One line: a case of a workload, its figures in the order of their columns, and whether all was right.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    /// What was done.
    pub(crate) name: String,
    /// Name with unit, and value.
    pub(crate) figures: Vec<(&'static str, f64)>,
    pub(crate) verdict: Verdict,
}

/// What must not happen, and what may.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Packets that came after one that was sent later.
    pub(crate) out_of_order: u64,
    /// Packets that came again.
    pub(crate) duplicated: u64,
    /// Packets that came to somebody else, or changed, or under another name.
    pub(crate) misrouted: u64,
    /// Packets of the crowd that did not come.
    pub(crate) lost: u64,
    /// Packets of quiet pairs that did not come.
    pub(crate) quiet_lost: u64,
    /// Clients that were cut and should not have been.
    pub(crate) cut: u64,
    /// Whether the bench itself was at its limit.
    pub(crate) bench_is_limit: bool,
}

impl Case {
    /// A case without figures yet. Its verdict is that of everything that the engine has done.
    pub(crate) fn new(name: impl Into<String>, engine: &Engine, measured: &Measured) -> Self {
        let mut verdict = Verdict::of(engine.traffic.tallies);
        verdict.cut = engine.ended.len() as u64;
        verdict.bench_is_limit = measured.busy > LIMIT_SHARE;
        Self { name: name.into(), figures: Vec::new(), verdict }
    }

    /// With the load that was offered, as it came out and as it should be, in percent of what the relay can do.
    pub(crate) fn with_offered(mut self, offered: f64, percent: u64) -> Self {
        self.verdict.bench_is_limit |= offered < OFFERED_SHARE * percent as f64;
        self.with("offered %", offered)
    }

    /// With one figure more.
    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push((name, value));
        self
    }

    /// With one figure more, if there is one.
    pub(crate) fn with_some(self, name: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With what the crowd achieved and what it cost.
    pub(crate) fn with_throughput(self, measured: &Measured, packet_bytes: usize) -> Self {
        let rate = measured.rate();
        self.with("kpkt/s", rate / 1e3)
            .with("Gbit/s", rate * 8.0 * packet_bytes as f64 / 1e9)
            .with_some(
                "CPU-s/Mpkt",
                measured.relay_cpu.map(|cpu| cpu / measured.seconds / rate * 1e6),
            )
            .with_shares(measured)
    }

    /// With how busy relay and bench were, and what the relay holds.
    pub(crate) fn with_shares(self, measured: &Measured) -> Self {
        self.with_some("relay CPU %", measured.relay_cpu.map(|cpu| cpu / measured.seconds * 100.0))
            .with_some("relay RSS MB", measured.relay_resident.map(|bytes| bytes as f64 / 1e6))
            .with("bench busy %", measured.busy * 100.0)
    }

    /// With how long the packets of the crowd took.
    pub(crate) fn with_latency(self, engine: &Engine) -> Self {
        let latency = &engine.traffic.latencies[Lane::Bulk as usize];
        self.with_some("p50 ms", latency.quantile_ms(0.5))
            .with_some("p99 ms", latency.quantile_ms(0.99))
    }

    /// With how long the packets and pings of quiet clients took.
    pub(crate) fn with_quiet(self, engine: &Engine) -> Self {
        let (packets, pongs) = (&engine.traffic.latencies, &engine.traffic.pongs);
        let (packets, pongs) = (&packets[Lane::Quiet as usize], &pongs[Lane::Quiet as usize]);
        self.with_some("quiet p50 ms", packets.quantile_ms(0.5))
            .with_some("quiet p99 ms", packets.quantile_ms(0.99))
            .with_some("quiet max ms", packets.quantile_ms(1.0))
            .with_some("pong p99 ms", pongs.quantile_ms(0.99))
    }
}

impl Verdict {
    fn of(tallies: [Tally; LANES]) -> Self {
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum();
        let [lost, quiet_lost] = tallies.map(|tally| tally.sent.saturating_sub(tally.delivered));
        Self {
            out_of_order: sum(|tally| tally.late),
            duplicated: sum(|tally| tally.twice),
            misrouted: sum(|tally| tally.misrouted),
            lost,
            quiet_lost,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_is_lost_and_what_came_twice_is_not_found_by_it() {
        let bulk = Tally { sent: 10, delivered: 7, late: 1, twice: 2, ..Tally::default() };
        let quiet = Tally { sent: 4, delivered: 3, misrouted: 1, ..Tally::default() };
        let verdict = Verdict::of([bulk, quiet]);
        assert_eq!([verdict.lost, verdict.quiet_lost], [3, 1]);
        assert_eq!([verdict.out_of_order, verdict.duplicated, verdict.misrouted], [1, 2, 1]);
    }
}
