//! `meshcontrol derp-map check`.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use mesh_cli::Output;
use mesh_wire::{DerpMap, DerpNode};
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::region::check_region;
use super::report::Report;
use super::source::{SourceArgs, regions};
use super::verdict::{Probe, is_usable, judge};
use crate::session::Session;

/// Nodes that are asked at once.
const NODES_AT_ONCE: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
}

impl CheckArgs {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let map = self.source.map(session).await?;
        let is_watched = session.output() == Output::Table && std::io::stderr().is_terminal();
        let report = check(&map, Arc::new(roots()), is_watched).await;
        session.output().value(&report, || report.table())?;
        match report.problem() {
            Some(problem) => anyhow::bail!(problem),
            None => Ok(()),
        }
    }
}

/// Asks all nodes of a map, and tells a person who watches how far it is.
pub(super) async fn check(map: &DerpMap, roots: Arc<RootCertStore>, is_watched: bool) -> Report {
    let nodes: usize = regions(map).map(|region| region.nodes.len()).sum();
    let (turns, asked) = (Arc::new(Semaphore::new(NODES_AT_ONCE)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for region in regions(map).cloned() {
        let asked = Arc::clone(&asked);
        let done = move |node: &DerpNode, probe: &Probe| {
            let count = asked.fetch_add(1, Ordering::Relaxed) + 1;
            if is_watched {
                let result = if is_usable(&judge(node, probe)) { "usable" } else { "unusable" };
                mesh_cli::tell(&format!(
                    "{count} of {nodes}: {} is {result}",
                    node.name.escape_debug()
                ));
            }
        };
        let (roots, turns) = (Arc::clone(&roots), Arc::clone(&turns));
        tasks.spawn(check_region(region, roots, turns, done));
    }
    Report::new(tasks.join_all().await)
}

/// The authorities of this machine, which stock clients on it trust too.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        mesh_cli::warn(
            "this machine trusts no authorities, so that only pinned certificates can be checked",
        );
    }
    roots
}

#[cfg(test)]
mod tests;
