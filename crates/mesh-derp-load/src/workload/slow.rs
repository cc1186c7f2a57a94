//! Receivers that read nothing, beside others that do.

use std::time::Duration;

use anyhow::Result;

use super::flows::add_flows;
use super::{Bench, FULL_BYTES, WARM_UP, drive_at, drive_closed};
use crate::engine::DRAIN;
use crate::report::Case;

/// Pairs whose receiver reads nothing.
const STALLED_PAIRS: usize = 10;

/// Packets a second of all of them together.
const STALLED_RATE: u64 = 20_000;

/// How much longer than others this workload goes on: until the relay should have lost patience.
const LONGER: Duration = Duration::from_secs(5);

impl Bench {
    /// How long packets of healthy pairs take while others get far more than they read, and when those are cut.
    pub(super) fn slow(&self) -> Result<Vec<Case>> {
        let mut engine = self.engine()?;
        let from = self.crowd(&mut engine, STALLED_PAIRS)?;
        let to = self.crowd(&mut engine, STALLED_PAIRS)?;
        let flows = add_flows(&mut engine, &from, &to, FULL_BYTES);
        // Who was sent something by a client hears when it is cut.
        let back = add_flows(&mut engine, &to, &from, FULL_BYTES);
        drive_closed(&mut engine, &back);
        engine.run(WARM_UP)?;
        engine.rest();
        self.quiet(&mut engine)?;
        engine.run(WARM_UP)?;
        for client in &to {
            engine.set_reading(*client, false)?;
        }
        let stalled_at = engine.now();
        drive_at(&mut engine, &flows, STALLED_RATE);
        let measured = engine.measure(self.time() + LONGER)?;
        engine.rest();
        // Whoever was cut learns it by reading.
        for client in &to {
            engine.set_reading(*client, true)?;
        }
        engine.run(DRAIN)?;
        let is_stalled = |client: usize| to.contains(&client);
        let cut = engine.ended.iter().filter(|ended| is_stalled(ended.client)).count();
        let first = engine.traffic.first_gone_at;
        let cut_after = first.map(|at| Duration::from_nanos(at - stalled_at).as_secs_f64());
        let mut case = Case::new("10 stalled of 20 receivers", &engine, &measured);
        case.verdict.cut -= cut as u64;
        Ok(vec![
            case.with("stalled cut", cut as f64)
                .with_some("first cut after s", cut_after)
                .with_shares(&measured)
                .with_quiet(&engine),
        ])
    }
}
