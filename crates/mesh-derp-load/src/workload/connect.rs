//! Workloads of clients that come, rest and go.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, LOGINS_AT_ONCE};
use crate::engine::Engine;
use crate::latency::Latency;
use crate::poller::Lane;
use crate::report::Case;

/// How many come.
const CLIENTS: usize = 2000;

/// How long all may take.
const LIMIT: Duration = Duration::from_mins(1);

/// How long they rest before it is looked what they take.
const REST: Duration = Duration::from_secs(2);

impl Bench {
    /// What a login costs, and what a client takes that rests.
    pub(super) fn login(&self) -> Result<Vec<Case>> {
        let mut engine = self.engine()?;
        // The first logins of a process cost more than all others.
        self.crowd(&mut engine, LOGINS_AT_ONCE)?;
        let case = self.come(&mut engine, LOGINS_AT_ONCE, "2000 TLS logins, 32 at a time")?;
        Ok(vec![case])
    }

    /// How long everybody takes to come back after the relay was away.
    pub(super) fn storm(&self) -> Result<Vec<Case>> {
        let mut engine = self.engine()?;
        self.crowd(&mut engine, LOGINS_AT_ONCE)?;
        Ok(vec![self.come(&mut engine, CLIENTS, "2000 TLS logins at once")?])
    }

    fn come(&self, engine: &mut Engine, at_once: usize, name: &str) -> Result<Case> {
        let (relay, began_at) = (engine.relay_cpu()?, engine.now());
        let resident = engine.relay_resident()?;
        let clients = engine.connect_all(&self.relays[0], Lane::Bulk, CLIENTS, at_once, LIMIT)?;
        let took = Duration::from_nanos(engine.now() - began_at).as_secs_f64();
        let relay = engine.relay_cpu()?.zip(relay).map(|(after, before)| after - before);
        let measured = engine.measure(REST)?;
        let resident = measured.relay_resident.zip(resident);
        let resident = resident.map(|(after, before)| after.saturating_sub(before));
        let mut logins = Latency::default();
        for client in &clients {
            let client = &engine.clients[*client];
            logins.record(client.ready_at.unwrap_or(u64::MAX).saturating_sub(client.began_at));
        }
        let per_client = |total: f64| total / CLIENTS as f64;
        Ok(Case::new(name, engine, &measured)
            .with("all in s", took)
            .with_some("relay CPU ms each", relay.map(|cpu| per_client(cpu * 1e3)))
            .with_some("login p50 ms", logins.quantile_ms(0.5))
            .with_some("login p99 ms", logins.quantile_ms(0.99))
            .with_some("RSS KB each", resident.map(|bytes| per_client(bytes as f64 / 1e3))))
    }
}
