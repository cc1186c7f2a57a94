//! The DERP map that clients get: what files and URLs say of regions, looked through and put together.
//!
//! When they are read, and who is told of a change, is left to the program.

mod problem;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use http_body_util::BodyExt;
use mesh_wire::{DerpHomeParams, DerpMap, DerpRegion, DerpRegionId};
use serde_json::Value;
use thiserror::Error;

pub use problem::{Problem, Problems};

/// Largest DERP map that is read, in bytes; Tailscale's has some 15,000.
pub const MAP_BYTES_MAX: usize = 2 << 20;

/// How long fetching a map may take.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Why a DERP map could not be had.
#[derive(Debug, Error)]
pub enum DerpMapError {
    /// The URL did not answer.
    #[error("could not fetch the DERP map")]
    Fetch(#[from] reqwest::Error),
    /// There is too much of it.
    #[error("the DERP map is larger than {MAP_BYTES_MAX} bytes")]
    TooLarge,
    /// What it holds is no DERP map.
    #[error("not a DERP map: {0}")]
    Malformed(String),
    /// Clients would be misled by some of its regions.
    #[error("{0}")]
    Problems(Problems),
    /// Clients take a map without regions for one that takes all relays from them.
    #[error("the DERP map has no region")]
    Empty,
    /// Clients tell nodes by their names.
    #[error("node {name} is in region {one} and in region {other}: give one of them another name")]
    SharedName {
        /// The name.
        name: String,
        /// Where it is first.
        one: DerpRegionId,
        /// Where it is again.
        other: DerpRegionId,
    },
}

/// What one file or URL says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DerpSource {
    /// The regions by their ids; `None` takes one away that an earlier source has.
    regions: BTreeMap<DerpRegionId, Option<DerpRegion>>,
    /// Factors on latencies, if it speaks of them.
    scores: Option<BTreeMap<DerpRegionId, f64>>,
    /// Whether the regions of URLs are left out.
    omits_fetched: bool,
}

impl DerpSource {
    /// Reads a map in JSON as servers publish it, or in YAML as operators of headscale write it: the same
    /// fields, in lower case. It is not looked through yet.
    pub fn parse(text: &[u8]) -> Result<Self, DerpMapError> {
        if text.len() > MAP_BYTES_MAX {
            return Err(DerpMapError::TooLarge);
        }
        // JSON is YAML too, but for its tabs.
        let value: Value = serde_json::from_slice(text)
            .or_else(|_| serde_saphyr::from_slice(text))
            .map_err(|error| DerpMapError::Malformed(error.without_snippet().to_string()))?;
        let removed = removed_regions(&value);
        let map: DerpMap = serde_path_to_error::deserialize(value)
            .map_err(|error| DerpMapError::Malformed(error.to_string()))?;
        let said = map.regions.into_iter().flatten();
        let said = said.map(|(id, region)| (id, Some(completed(id, region))));
        Ok(Self {
            regions: removed.map(|id| (id, None)).chain(said).collect(),
            scores: map.home_params.and_then(|params| params.region_score),
            omits_fetched: map.omit_default_regions,
        })
    }

    /// Reads a file of the operator's, who is told everything that is wrong with it.
    pub fn parse_sound(text: &[u8]) -> Result<Self, DerpMapError> {
        let this = Self::parse(text)?;
        let problems = this.problems();
        if problems.is_empty() { Ok(this) } else { Err(DerpMapError::Problems(problems)) }
    }

    /// Fetches somebody else's map, and leaves out the regions that clients would be misled by.
    ///
    /// # Errors
    /// [`DerpMapError::Empty`] also if no region is left.
    pub async fn fetch(url: &str) -> Result<(Self, Problems), DerpMapError> {
        // Made for each time: it is hours until the next, and who has no URLs need not have authorities either.
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        let answer = client.get(url).send().await?.error_for_status()?;
        let body = http_body_util::Limited::new(reqwest::Body::from(answer), MAP_BYTES_MAX);
        let text = body.collect().await.map_err(|error| match error.downcast() {
            Ok(error) => DerpMapError::Fetch(*error),
            Err(_) => DerpMapError::TooLarge,
        })?;
        let mut this = Self::parse(&text.to_bytes())?;
        let problems = this.problems();
        let Self { regions, scores, .. } = &mut this;
        regions.retain(|id, _| !problems.concern(*id));
        let gives = |id: &DerpRegionId| regions.get(id).is_some_and(Option::is_some);
        if let Some(scores) = scores {
            scores.retain(|id, _| gives(id));
        }
        let has_region = regions.values().any(Option::is_some);
        if has_region { Ok((this, problems)) } else { Err(DerpMapError::Empty) }
    }

    /// Everything that is wrong with it.
    fn problems(&self) -> Problems {
        let regions = self.regions.iter();
        let regions = regions.filter_map(|(id, region)| Some((*id, region.as_ref()?)));
        Problems::find(regions, self.scores.iter().flatten())
    }
}

impl From<DerpRegion> for DerpSource {
    /// A source that says only this region.
    fn from(region: DerpRegion) -> Self {
        Self { regions: [(region.region_id, Some(region))].into(), ..Self::default() }
    }
}

/// One map of several, as [`merge_found`] makes it.
pub fn merge(fetched: &[DerpSource], own: &[DerpSource]) -> Result<DerpMap, DerpMapError> {
    merge_found(fetched, own).map(|(map, _)| map)
}

/// One map of several, and why regions of `fetched` ones are not in it. Later sources win where they have the same
/// region or name a node the same, and those of the operator's `own` over `fetched` ones.
///
/// # Errors
/// [`DerpMapError::SharedName`] only if `own` sources name nodes the same: the operator can mend those.
pub fn merge_found(
    fetched: &[DerpSource],
    own: &[DerpSource],
) -> Result<(DerpMap, Problems), DerpMapError> {
    let omits_fetched = own.iter().any(|source| source.omits_fetched);
    let fetched = if omits_fetched { &[] } else { fetched };
    let sources = || fetched.iter().chain(own).enumerate();
    let mut given = BTreeMap::new();
    for (place, source) in sources() {
        for (id, region) in &source.regions {
            match region {
                Some(region) => _ = given.insert(*id, (place, region)),
                None => _ = given.remove(id),
            }
        }
    }
    if given.is_empty() {
        return Err(DerpMapError::Empty);
    }
    let problems = settle_names(&mut given, fetched.len())?;
    let mut scores: Option<BTreeMap<_, _>> = None;
    for (place, source) in sources() {
        let Some(said) = &source.scores else { continue };
        // Who fetches a map does not let it speak of regions that others give.
        let may_score = |giver: usize| giver == place || place >= fetched.len();
        let known =
            said.iter().filter(|(id, _)| given.get(id).is_some_and(|(by, _)| may_score(*by)));
        scores.get_or_insert_default().extend(known);
    }
    let regions = given.into_iter().map(|(id, (_, region))| (id, region.clone())).collect();
    let home_params = scores.map(|scores| DerpHomeParams { region_score: Some(scores) });
    Ok((DerpMap { regions: Some(regions), home_params, ..DerpMap::default() }, problems))
}

/// Regions by their ids, each with the place of the source that gives it.
type Given<'a> = BTreeMap<DerpRegionId, (usize, &'a DerpRegion)>;

/// Leaves out regions of the first sources, the `fetched` ones, that name nodes as others do which win over them.
/// Nodes of the same source were compared when it was looked through.
fn settle_names(given: &mut Given<'_>, fetched: usize) -> Result<Problems, DerpMapError> {
    // All own ones are of one rank.
    let ranked = given.iter().map(|(id, (place, region))| (*id, (*place).min(fetched), *region));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(_, rank, _)| Reverse(*rank));
    let (mut seen, mut problems) = (BTreeMap::new(), Vec::new());
    for (id, rank, region) in ranked {
        let names = || region.nodes.iter().map(|node| &node.name);
        let shared = names().find_map(|name| Some((name.clone(), *seen.get(name)?)));
        match shared {
            None => seen.extend(names().map(|name| (name, id))),
            Some((name, one)) if rank == fetched => {
                return Err(DerpMapError::SharedName { name, one, other: id });
            }
            Some((name, one)) => {
                given.remove(&id);
                let what = format!(
                    "region {one}, which wins over this one, has a node of this name: rename that if it is yours"
                );
                problems.push(Problem { region: id, node: Some(name), what });
            }
        }
    }
    Ok(problems.into_iter().collect())
}

/// The regions that are `null`, which the types of the wire leave out as clients do.
fn removed_regions(map: &Value) -> impl Iterator<Item = DerpRegionId> + use<> {
    let fields = map.as_object().into_iter().flatten();
    let regions = fields.filter(|(name, _)| name.eq_ignore_ascii_case("regions"));
    let regions = regions.filter_map(|(_, regions)| regions.as_object()).flatten();
    let removed = regions.filter(|(_, region)| region.is_null());
    let removed: Vec<_> = removed.filter_map(|(id, _)| id.parse().ok().map(DerpRegionId)).collect();
    removed.into_iter()
}

/// Fills in what a region leaves to its key, and writes as clients read it what is right in several ways.
fn completed(id: DerpRegionId, mut region: DerpRegion) -> DerpRegion {
    let unsaid = DerpRegionId::default();
    if region.region_id == unsaid {
        region.region_id = id;
    }
    // Clients below the gate of the one know the other.
    region.avoid |= region.no_measure_no_home;
    for node in &mut region.nodes {
        if node.region_id == unsaid {
            node.region_id = region.region_id;
        }
        if node.cert_name.starts_with(problem::PIN_PREFIX) {
            node.cert_name.make_ascii_lowercase();
        }
    }
    region
}

#[cfg(test)]
mod tests;
