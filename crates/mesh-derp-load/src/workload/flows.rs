//! Workloads of many packets: closed loops, and open ones below and above what the relay can do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, FULL_BYTES, LOGIN_LIMIT, LOGINS_AT_ONCE, WARM_UP, drive_at, drive_closed};
use crate::engine::{DRAIN, Engine};
use crate::poller::Lane;
use crate::report::Case;

/// Pairs and bytes of the closed loops.
const THROUGHPUT: [(usize, usize); 3] = [(10, FULL_BYTES), (100, FULL_BYTES), (10, 64)];

/// Senders of the open loops.
const SENDERS: usize = 50;

/// Receivers of the overload in which many send to few.
const FEW_RECEIVERS: usize = 5;

/// Of what the relay can do, in percent: ordinary load, and too much of it.
const LOAD_PERCENT: u64 = 75;
const OVERLOAD_PERCENT: u64 = 250;

/// How often one that floods pings.
const FLOODER_PING: Duration = Duration::from_millis(200);

/// How long an overload goes on before it is measured: until the kernel's buffers on the way to the relay are full.
const OVERLOAD_WARM_UP: Duration = Duration::from_secs(3);

/// Pairs across a mesh.
const MESH_PAIRS: usize = 10;

/// How long the relays of a mesh may take to find each other.
const MESH_LIMIT: Duration = Duration::from_secs(20);

impl Bench {
    /// What passes between pairs that wait for each other.
    pub(super) fn throughput(&self) -> Result<Vec<Case>> {
        THROUGHPUT.iter().map(|(pairs, bytes)| self.closed(*pairs, *bytes)).collect()
    }

    fn closed(&self, pairs: usize, bytes: usize) -> Result<Case> {
        let mut engine = self.engine()?;
        let clients = self.crowd(&mut engine, 2 * pairs)?;
        let (from, to) = clients.split_at(pairs);
        let flows = add_flows(&mut engine, from, to, bytes);
        self.measure_closed(engine, &flows, format!("{pairs} pairs x {bytes} B"), bytes)
    }

    fn measure_closed(
        &self,
        mut engine: Engine,
        flows: &[usize],
        name: String,
        bytes: usize,
    ) -> Result<Case> {
        drive_closed(&mut engine, flows);
        engine.run(WARM_UP)?;
        let measured = engine.measure(self.time())?;
        engine.rest();
        engine.run(DRAIN)?;
        let case = Case::new(name, &engine, &measured);
        Ok(case.with_throughput(&measured, bytes).with_latency(&engine))
    }

    /// How long packets take while the relay has enough to do, but not too much.
    pub(super) fn load(&self) -> Result<Vec<Case>> {
        let mut open = OpenLoop::new(self, SENDERS)?;
        let case = open.measure(self, "50 pairs x 1400 B", LOAD_PERCENT)?;
        Ok(vec![case])
    }

    /// What still passes, and how long that of quiet clients takes, while there is far too much.
    pub(super) fn overload(&self) -> Result<Vec<Case>> {
        [FEW_RECEIVERS, SENDERS]
            .iter()
            .map(|receivers| {
                let mut open = OpenLoop::new(self, *receivers)?;
                for client in 0..SENDERS {
                    open.engine.ping_every(client, FLOODER_PING);
                }
                let name = format!("{SENDERS} to {receivers} x 1400 B");
                let case = open.measure(self, &name, OVERLOAD_PERCENT)?;
                let flooders = &open.engine.traffic.pongs[Lane::Bulk as usize];
                Ok(case.with_some("flooder pong p99 ms", flooders.quantile_ms(0.99)))
            })
            .collect()
    }

    /// What passes between pairs whose clients are at different relays of a mesh.
    pub(super) fn mesh(&self) -> Result<Vec<Case>> {
        ensure!(self.relays.len() == 2, "a mesh needs a second --relay");
        let mut engine = self.engine()?;
        let [from, to] = [0, 1].map(|relay| {
            let relay = &self.relays[relay];
            engine.connect_all(relay, Lane::Bulk, MESH_PAIRS, LOGINS_AT_ONCE, LOGIN_LIMIT)
        });
        let (from, to) = (from?, to?);
        let flows = add_flows(&mut engine, &from, &to, FULL_BYTES);
        wait_for_mesh(&mut engine, &flows)?;
        let name = format!("{MESH_PAIRS} pairs x {FULL_BYTES} B across");
        Ok(vec![self.measure_closed(engine, &flows, name, FULL_BYTES)?])
    }
}

/// Senders that do not wait, and what the relay can do with their like.
struct OpenLoop {
    engine: Engine,
    flows: Vec<usize>,
    /// Packets a second in a closed loop of as many pairs.
    capacity: f64,
}

impl OpenLoop {
    fn new(bench: &Bench, receivers: usize) -> Result<Self> {
        let mut engine = bench.engine()?;
        let from = bench.crowd(&mut engine, SENDERS)?;
        let to = bench.crowd(&mut engine, SENDERS)?;
        let pairs = add_flows(&mut engine, &from, &to, FULL_BYTES);
        drive_closed(&mut engine, &pairs);
        engine.run(WARM_UP)?;
        let capacity = engine.measure(bench.time() / 2)?.rate();
        engine.rest();
        engine.run(DRAIN)?;
        let flows = if receivers == SENDERS {
            pairs
        } else {
            add_flows(&mut engine, &from, &to[..receivers], FULL_BYTES)
        };
        bench.quiet(&mut engine)?;
        Ok(Self { engine, flows, capacity })
    }

    fn measure(&mut self, bench: &Bench, name: &str, percent: u64) -> Result<Case> {
        let engine = &mut self.engine;
        drive_at(engine, &self.flows, rate_of(self.capacity, percent));
        engine.run(if percent > 100 { OVERLOAD_WARM_UP } else { WARM_UP })?;
        let measured = engine.measure(bench.time())?;
        engine.rest();
        engine.run(DRAIN)?;
        let bulk = measured.tallies[Lane::Bulk as usize];
        let of_capacity = |packets: u64| packets as f64 / measured.seconds / self.capacity * 100.0;
        Ok(Case::new(name, engine, &measured)
            .with("capacity kpkt/s", self.capacity / 1e3)
            .with_offered(of_capacity(bulk.sent + bulk.held_back), percent)
            .with("taken %", of_capacity(bulk.sent))
            .with("goodput %", of_capacity(bulk.delivered))
            .with_throughput(&measured, FULL_BYTES)
            .with_latency(engine)
            .with_quiet(engine))
    }
}

/// Waits until something passes on all flows: relays may take seconds until they know each other's clients.
fn wait_for_mesh(engine: &mut Engine, flows: &[usize]) -> Result<()> {
    let deadline = Instant::now() + MESH_LIMIT;
    drive_closed(engine, flows);
    while !flows.iter().all(|flow| engine.traffic.flows[*flow].has_begun()) {
        ensure!(Instant::now() < deadline, "the relays do not pass packets on to each other");
        engine.run(DRAIN)?;
    }
    engine.rest();
    engine.run(DRAIN)?;
    // What was lost until then is no fault.
    engine.traffic.tallies = Default::default();
    Ok(())
}

/// A flow from each sender, to the receivers in turn.
pub(super) fn add_flows(
    engine: &mut Engine,
    from: &[usize],
    to: &[usize],
    bytes: usize,
) -> Vec<usize> {
    from.iter()
        .zip(to.iter().cycle())
        .map(|(from, to)| engine.add_flow(Lane::Bulk, *from, *to, bytes))
        .collect()
}

/// So many percent of a rate, in whole packets a second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far from the limits"
)]
fn rate_of(capacity: f64, percent: u64) -> u64 {
    (capacity * percent as f64 / 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_load_is_a_share_of_the_capacity() {
        assert_eq!(rate_of(173_000.0, OVERLOAD_PERCENT), 432_500);
        assert_eq!(rate_of(173_000.0, LOAD_PERCENT), 129_750);
        assert_eq!(rate_of(0.0, LOAD_PERCENT), 0);
    }
}
