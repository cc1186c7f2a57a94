//! What happened in a span of time, and what it cost.

use std::time::Duration;

use anyhow::Result;

use super::Engine;
use crate::poller::{LANES, Lane};
use crate::process;
use crate::traffic::Tally;

/// Where a measurement began.
#[derive(Debug)]
pub(crate) struct Mark {
    at: u64,
    tallies: [Tally; LANES],
    relay_cpu: Option<f64>,
    idle: u64,
}

/// What happened in a span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Processor time of the relays in seconds, if their processes are known.
    pub(crate) relay_cpu: Option<f64>,
    /// Memory of the relays that is resident at the end, in bytes, if their processes are known.
    pub(crate) relay_resident: Option<u64>,
    /// Share of the time in which we had something to do, from 0 to 1.
    pub(crate) busy: f64,
    /// By lane.
    pub(crate) tallies: [Tally; LANES],
}

impl Measured {
    /// Packets of the crowd that were delivered in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tallies[Lane::Bulk as usize].delivered as f64 / self.seconds
    }
}

impl Engine {
    /// Lets everything happen for this long, and tells what it was and what it cost.
    pub(crate) fn measure(&mut self, time: Duration) -> Result<Measured> {
        let mark = self.mark()?;
        self.run(time)?;
        self.since(&mark)
    }

    /// Begins a measurement.
    pub(crate) fn mark(&mut self) -> Result<Mark> {
        self.traffic.clear_latencies();
        let (at, tallies) = (self.now(), self.traffic.tallies);
        Ok(Mark { at, tallies, relay_cpu: self.relay_cpu()?, idle: self.idle })
    }

    /// Tells what has happened since a mark and what it cost.
    pub(crate) fn since(&self, mark: &Mark) -> Result<Measured> {
        let elapsed = self.now() - mark.at;
        let [bulk, quiet] = &self.traffic.tallies;
        Ok(Measured {
            seconds: Duration::from_nanos(elapsed).as_secs_f64(),
            relay_cpu: self.relay_cpu()?.zip(mark.relay_cpu).map(|(after, before)| after - before),
            relay_resident: self.relay_resident()?,
            busy: 1.0 - (self.idle - mark.idle) as f64 / elapsed as f64,
            tallies: [bulk.since(&mark.tallies[0]), quiet.since(&mark.tallies[1])],
        })
    }

    /// Processor time of the relays so far in seconds, if their processes are known.
    pub(crate) fn relay_cpu(&self) -> Result<Option<f64>> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        Ok(Some(process::time_of(&self.pids)?.as_secs_f64()))
    }

    /// Memory of the relays that is resident, in bytes, if their processes are known.
    pub(crate) fn relay_resident(&self) -> Result<Option<u64>> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        Ok(Some(process::resident_bytes(&self.pids)?))
    }
}
