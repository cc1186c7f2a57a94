//! Clients that break every rule, beside others that do not.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::engine::{DRAIN, Engine, Measured};
use crate::latency::Latency;
use crate::mischief::Mischief;
use crate::poller::Lane;
use crate::report::Case;

/// Hostile clients that come in each [`PERIOD`].
const HOSTILE_AT_ONCE: usize = 20;

/// How often hostile clients come, and one that is not.
const PERIOD: Duration = Duration::from_millis(100);

/// Clients that have connected and say nothing.
const HALF_OPEN: usize = 10_000;

/// How long such a crowd has been there before it is looked how others fare.
const SETTLE: Duration = Duration::from_millis(500);

impl Bench {
    /// How quiet pairs and new clients fare among hostile ones.
    pub(super) fn hostile(&self) -> Result<Vec<Case>> {
        Ok(vec![self.among_hostile()?, self.among_half_open()?])
    }

    fn among_hostile(&self) -> Result<Case> {
        let mut engine = self.engine()?;
        self.quiet(&mut engine)?;
        let mut ways = Mischief::ALL.into_iter().cycle();
        let (case, measured, hostile) =
            self.with_newcomers(&mut engine, "200 hostile clients a second", |engine| {
                for mischief in ways.by_ref().take(HOSTILE_AT_ONCE) {
                    engine.connect_hostile(&self.relays[0], mischief)?;
                }
                Ok(HOSTILE_AT_ONCE)
            })?;
        let each = measured.relay_cpu.map(|cpu| cpu / hostile as f64 * 1e3);
        let hung_up = engine.hung_up as f64 / hostile as f64 * 100.0;
        Ok(case.with_some("relay CPU ms each", each).with("hung up on %", hung_up))
    }

    fn among_half_open(&self) -> Result<Case> {
        let mut engine = self.engine()?;
        self.quiet(&mut engine)?;
        for _ in 0..HALF_OPEN {
            engine.connect_hostile(&self.relays[0], Mischief::Silent)?;
        }
        engine.run(SETTLE)?;
        let name = "10,000 half-open connections";
        Ok(self.with_newcomers(&mut engine, name, |_| Ok(0))?.0)
    }

    /// Lets one client come in each period, and `others`, who says how many. Returns how many those were in all.
    fn with_newcomers(
        &self,
        engine: &mut Engine,
        name: &str,
        mut others: impl FnMut(&mut Engine) -> Result<usize>,
    ) -> Result<(Case, Measured, usize)> {
        let (mut newcomers, mut total, mark) = (Vec::new(), 0, engine.mark()?);
        for _ in 0..self.time().as_millis() / PERIOD.as_millis() {
            total += others(engine)?;
            newcomers.push(engine.connect(&self.relays[0], Lane::Quiet)?);
            engine.run(PERIOD)?;
        }
        let measured = engine.since(&mark)?;
        engine.rest();
        engine.run(DRAIN)?;
        let mut logins = Latency::default();
        let mut waiting = 0_usize;
        for client in newcomers.iter().map(|client| &engine.clients[*client]) {
            match client.ready_at {
                Some(ready_at) => logins.record(ready_at - client.began_at),
                None => waiting += 1,
            }
        }
        let case = Case::new(name, engine, &measured)
            .with_some("login p50 ms", logins.quantile_ms(0.5))
            .with_some("login p99 ms", logins.quantile_ms(0.99))
            .with("not let in", waiting as f64)
            .with_shares(&measured)
            .with_quiet(engine);
        Ok((case, measured, total))
    }
}
