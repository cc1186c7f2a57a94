//! The DERP map that clients are told: where it comes from, and how it is kept up to date.

mod age;
mod file;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_config::Config;
use mesh_netmap::MapContext;
use mesh_server::derp_map::{DerpMapError, DerpSource, Problems, merge_found};
use mesh_wire::{DerpHomeParams, DerpMap, DerpRegion};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub(crate) use age::MapAge;

use super::settings;
use file::MapFile;
use url::MapUrls;

/// How often files are looked at. A change that two looks in a row find the same is taken in.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the start waits for URLs if there are other regions.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Gathers what netmaps hold beside the tailnet, and keeps it up to date. Tells the age of the DERP map in it too.
pub(crate) async fn spawn_contexts(
    config: &Config,
    embedded: Option<DerpRegion>,
    stop: CancellationToken,
) -> anyhow::Result<(watch::Receiver<Arc<MapContext>>, MapAge)> {
    let mut sources = Sources::gather(config, embedded).await?;
    let mut merged = sources.merge();
    if matches!(merged, Err(DerpMapError::Empty)) {
        sources.urls.finish().await;
        merged = sources.merge();
    }
    let map = match merged {
        Err(DerpMapError::Empty) => bail!(
            "there is no DERP region: enable derp.server, or name a map in derp.urls or derp.paths"
        ),
        merged => merged.context("the DERP maps of derp.urls and derp.paths do not go together")?,
    };
    let (contexts, reader) = watch::channel(Arc::new(settings::map_context(config, Arc::new(map))));
    let is_followed = config.derp.auto_update_enabled;
    let age = MapAge::new(is_followed.then(|| sources.read_at()));
    let follower = Follower { sources, contexts, age: age.clone(), problem: None, is_followed };
    tokio::spawn(follower.run(stop));
    Ok((reader, age))
}

/// Where the DERP map comes from.
struct Sources {
    urls: MapUrls,
    files: Vec<MapFile>,
    embedded: Option<DerpSource>,
    /// What was last left out of fetched maps, for it does not go with others.
    left_out: Problems,
}

impl Sources {
    /// Reads files and URLs. A file that is wrong is an error; a URL that does not answer is tried again later.
    async fn gather(config: &Config, embedded: Option<DerpRegion>) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for path in &config.derp.paths {
            files.push(MapFile::read(path.clone()).await?);
        }
        let mut urls = MapUrls::new(&config.derp);
        urls.start(START_PATIENCE).await;
        let embedded = embedded.map(DerpSource::from);
        Ok(Self { urls, files, embedded, left_out: Problems::default() })
    }

    /// All regions; ours wins over those of files, and they over fetched ones.
    fn merge(&mut self) -> Result<DerpMap, DerpMapError> {
        let files = self.files.iter().map(MapFile::source);
        let own: Vec<_> = files.chain(&self.embedded).cloned().collect();
        let (map, problems) = merge_found(&self.urls.sources(), &own)?;
        if !problems.is_empty() && problems != self.left_out {
            tracing::warn!("regions of derp.urls are left out: {problems}");
        }
        self.left_out = problems;
        Ok(map)
    }

    /// When the source was read that has gone without the longest.
    fn read_at(&self) -> Instant {
        let files = self.files.iter().map(MapFile::read_at);
        files.chain(self.urls.read_at()).min().unwrap_or_else(Instant::now)
    }
}

/// What files and URLs say together at this moment, without the region of the server's own relay. None of them may
/// fail.
pub(crate) async fn configured(config: &Config) -> anyhow::Result<DerpMap> {
    let (mut fetched, mut own) = (Vec::new(), Vec::new());
    for url in &config.derp.urls {
        let url = url.to_text();
        fetched.push(DerpSource::fetch(&url).await.with_context(|| url)?.0);
    }
    for path in &config.derp.paths {
        own.push(MapFile::read(path.clone()).await?.source().clone());
    }
    let (map, problems) = merge_found(&fetched, &own)?;
    if !problems.is_empty() {
        mesh_cli::warn(&format!("regions of derp.urls are left out: {problems}"));
    }
    Ok(map)
}

/// Follows the sources, and tells clients of a change.
struct Follower {
    sources: Sources,
    contexts: watch::Sender<Arc<MapContext>>,
    age: MapAge,
    /// Why the sources do not make a map, if so.
    problem: Option<String>,
    is_followed: bool,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.renew_age();
            tokio::select! {
                // Rank: stopping, what is rare, chores.
                biased;
                () = stop.cancelled() => return,
                // Knows by itself who is asked if nothing is followed.
                () = self.sources.urls.next() => self.publish(),
                _ = looks.tick(), if self.is_followed => {
                    let mut is_taken_in = false;
                    for file in &mut self.sources.files {
                        is_taken_in |= file.look().await;
                    }
                    if is_taken_in {
                        self.publish();
                    }
                }
            }
        }
    }

    /// A map that is not renewed grows older, though its sources can be read.
    fn renew_age(&self) {
        if self.is_followed && self.problem.is_none() {
            self.age.set(self.sources.read_at());
        }
    }

    /// Tells clients of the map, if it is another one. Sources that make none leave what they have.
    fn publish(&mut self) {
        let map = match self.sources.merge() {
            Ok(map) => map,
            Err(error) => {
                let problem = Some(error.to_string());
                if self.problem != problem {
                    tracing::warn!(%error, "the DERP map is not renewed, the last good one stays");
                }
                self.problem = problem;
                return;
            }
        };
        self.problem = None;
        let is_new = self.contexts.send_if_modified(|context| renew(context, map));
        if is_new {
            let context = self.contexts.borrow();
            let regions = context.derp_map.regions.as_ref().map_or(0, BTreeMap::len);
            tracing::info!(derp.regions = regions, "the DERP map has changed, clients are told");
        }
    }
}

/// Puts a map in the place of another, and says whether that is a difference.
fn renew(context: &mut Arc<MapContext>, mut map: DerpMap) -> bool {
    // Clients keep the scores that they have until they are told of others, even of none.
    if map.home_params.is_none() && context.derp_map.home_params.is_some() {
        map.home_params = Some(DerpHomeParams { region_score: Some([].into()) });
    }
    let is_new = *context.derp_map != map;
    if is_new {
        let derp_map = Arc::new(map);
        *context = Arc::new(MapContext { derp_map, ..MapContext::clone(context) });
    }
    is_new
}

#[cfg(test)]
mod tests;
