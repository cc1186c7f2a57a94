//! The map that a verb is about.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mesh_server::derp_map::{DerpMapError, DerpSource, merge};
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId};

use crate::client::{Client, Unreachable};
use crate::serve::derp_map::configured;
use crate::session::Session;

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The map in YAML or JSON, as in `derp.paths`
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// This region only
    #[arg(short, long, value_name = "ID")]
    region: Option<u32>,
}

impl SourceArgs {
    /// The map, with all regions or the one that is asked for.
    pub(super) async fn map(&self, session: &Session) -> anyhow::Result<DerpMap> {
        let mut map = match &self.file {
            Some(path) => read(path)?,
            None => ask(session).await?,
        };
        let Some(id) = self.region.map(DerpRegionId) else { return Ok(map) };
        let regions = map.regions.get_or_insert_default();
        let known: Vec<_> = regions.keys().map(ToString::to_string).collect();
        regions.retain(|other, _| *other == id);
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        anyhow::ensure!(!regions.is_empty(), "the map has no region {id}: it has {known}");
        Ok(map)
    }
}

/// The regions of a map, in the order of their ids.
pub(super) fn regions(map: &DerpMap) -> impl Iterator<Item = &DerpRegion> {
    map.regions.iter().flatten().map(|(_, region)| region)
}

fn read(path: &Path) -> anyhow::Result<DerpMap> {
    let shown = path.display();
    let text = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let source = DerpSource::parse_sound(&text);
    match source.and_then(|source| merge(&[], &[source])) {
        // One that only takes regions from others is right too.
        Err(DerpMapError::Empty) => {
            mesh_cli::tell(&format!("{shown} is good and has no region of its own"));
            Ok(DerpMap { regions: Some([].into()), ..DerpMap::default() })
        }
        merged => merged.with_context(|| format!("{shown} cannot be used")),
    }
}

/// Asks the server. One on this machine that does not run has a configuration all the same.
async fn ask(session: &Session) -> anyhow::Result<DerpMap> {
    let config = session.load(Vec::new())?.config;
    match Client::new(&config)?.impatient().get(&["derp", "map"], &[]).await {
        Err(error) if error.is::<Unreachable>() && config.cli.address.is_none() => {
            mesh_cli::warn(
                "no server runs here, so this is what derp.urls and derp.paths say, without its own relay",
            );
            configured(&config).await
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_only_takes_regions_away_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("derp.yaml");
        for text in ["regions: {}", "regions: {10: null}", "omitdefaultregions: true"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(regions(&read(&path).unwrap()).count(), 0, "{text}");
        }
        std::fs::write(&path, "regions: {0: {}}").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.ends_with("cannot be used"), "{error}");
    }
}
