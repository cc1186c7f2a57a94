//! What is measured, and how.

mod connect;
mod flows;
mod hostile;
mod slow;

use std::time::Duration;

use anyhow::Result;

use crate::cli::Workload;
use crate::client::Relay;
use crate::engine::Engine;
use crate::poller::Lane;
use crate::report::Case;
use crate::traffic::Drive;

/// Packets of a closed loop that are under way for each pair.
const WINDOW: u64 = 24;

/// Bytes of a full packet of WireGuard's, or nearly.
const FULL_BYTES: usize = 1400;

/// Bytes of the packets of quiet pairs.
const QUIET_BYTES: usize = 128;

/// Pairs that send little, to see how long that takes.
const QUIET_PAIRS: usize = 5;

/// Packets a second of all quiet pairs together.
const QUIET_RATE: u64 = 500;

/// How often a quiet client pings.
const PING_PERIOD: Duration = Duration::from_millis(50);

/// How long a workload goes on before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the clients of a workload may take to log in.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Clients that log in at the same time.
const LOGINS_AT_ONCE: usize = 32;

/// What is measured with.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) relays: Vec<Relay>,
    pub(crate) pids: Vec<u32>,
    /// Of each measurement.
    pub(crate) seconds: u64,
}

impl Bench {
    /// Runs a workload.
    ///
    /// # Errors
    /// The relay does not let us in, or is gone.
    pub(crate) fn run(&self, workload: Workload) -> Result<Vec<Case>> {
        match workload {
            Workload::Throughput => self.throughput(),
            Workload::Load => self.load(),
            Workload::Overload => self.overload(),
            Workload::Login => self.login(),
            Workload::Storm => self.storm(),
            Workload::Slow => self.slow(),
            Workload::Mesh => self.mesh(),
            Workload::Hostile => self.hostile(),
        }
    }

    fn engine(&self) -> Result<Engine> {
        Engine::new(self.pids.clone())
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Connects as many clients of the crowd.
    fn crowd(&self, engine: &mut Engine, count: usize) -> Result<Vec<usize>> {
        engine.connect_all(&self.relays[0], Lane::Bulk, count, LOGINS_AT_ONCE, LOGIN_LIMIT)
    }

    /// Connects the quiet pairs and lets them speak.
    fn quiet(&self, engine: &mut Engine) -> Result<()> {
        let count = 2 * QUIET_PAIRS;
        let relay = &self.relays[0];
        let clients = engine.connect_all(relay, Lane::Quiet, count, LOGINS_AT_ONCE, LOGIN_LIMIT)?;
        let (from, to) = clients.split_at(QUIET_PAIRS);
        let flows: Vec<_> = (from.iter().zip(to))
            .map(|(from, to)| engine.add_flow(Lane::Quiet, *from, *to, QUIET_BYTES))
            .collect();
        drive_at(engine, &flows, QUIET_RATE);
        for client in from {
            engine.ping_every(*client, PING_PERIOD);
        }
        Ok(())
    }
}

/// Lets flows send this many packets a second all together.
fn drive_at(engine: &mut Engine, flows: &[usize], per_second: u64) {
    let paces = crate::pace::Pace::shared(engine.now(), per_second, flows.len() as u64);
    for (flow, pace) in flows.iter().zip(paces) {
        engine.drive(*flow, Drive::Paced(pace));
    }
}

/// Lets flows send as in a closed loop.
fn drive_closed(engine: &mut Engine, flows: &[usize]) {
    for flow in flows {
        engine.drive(*flow, Drive::Window(WINDOW));
    }
}
