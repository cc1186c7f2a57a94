//! The DERP map that clients get: our own region, and those of files and URLs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId};
use thiserror::Error;

/// Largest DERP map that is read from a URL, in bytes; Tailscale's has some 15,000.
const MAP_BYTES_MAX: usize = 4 << 20;

/// How long fetching a map may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a DERP map could not be had.
#[derive(Debug, Error)]
pub enum DerpMapError {
    /// The URL did not answer.
    #[error("could not fetch the DERP map")]
    Fetch(#[from] reqwest::Error),
    /// It answered with something too large.
    #[error("the DERP map is larger than {MAP_BYTES_MAX} bytes")]
    TooLarge,
    /// What it holds is no DERP map.
    #[error("not a DERP map: {0}")]
    Malformed(String),
}

/// Reads a DERP map in JSON, as servers publish it.
pub fn parse_json(text: &[u8]) -> Result<DerpMap, DerpMapError> {
    serde_json::from_slice(text).map_err(|error| DerpMapError::Malformed(error.to_string()))
}

/// Reads a DERP map in YAML, as operators of headscale write it: the same fields, in lower case.
pub fn parse_yaml(text: &[u8]) -> Result<DerpMap, DerpMapError> {
    let malformed = |error: String| DerpMapError::Malformed(error);
    let value: serde_json::Value =
        serde_saphyr::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
}

/// Fetches a DERP map.
pub async fn fetch(client: &reqwest::Client, url: &str) -> Result<DerpMap, DerpMapError> {
    let answer = client.get(url).timeout(FETCH_TIMEOUT).send().await?.error_for_status()?;
    let body = http_body_util::Limited::new(reqwest::Body::from(answer), MAP_BYTES_MAX);
    let text = body.collect().await.map_err(|_| DerpMapError::TooLarge)?.to_bytes();
    parse_json(&text)
}

/// One map of several: later ones win where they have the same region. Regions are keyed by their own ids,
/// and those without a node are left out, for clients would choose them and then reach nobody.
pub fn merge(maps: impl IntoIterator<Item = DerpMap>) -> Arc<DerpMap> {
    let mut regions: BTreeMap<DerpRegionId, DerpRegion> = BTreeMap::new();
    for map in maps {
        for (id, region) in map.regions.into_iter().flatten() {
            if !region.nodes.is_empty() {
                regions.insert(id, region);
            }
        }
    }
    Arc::new(DerpMap { regions: Some(regions), ..DerpMap::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headscales_yaml_reads_like_tailscales_json() {
        let yaml = "regions:\n  900:\n    regionid: 900\n    regioncode: home\n    regionname: At home\n    \
                    nodes:\n      - name: 900a\n        regionid: 900\n        hostname: derp.example.com\n        \
                    ipv4: 192.0.2.1\n        stunport: 3478\n        derpport: 443\n";
        let json = r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"home","RegionName":"At home","Nodes":[
            {"Name":"900a","RegionID":900,"HostName":"derp.example.com","IPv4":"192.0.2.1","STUNPort":3478,"DERPPort":443}]}}}"#;
        let (yaml, json) = (parse_yaml(yaml.as_bytes()), parse_json(json.as_bytes()));
        assert_eq!(yaml.expect("yaml"), json.expect("json"));
    }

    #[test]
    fn regions_without_nodes_are_left_out() {
        let map = parse_json(br#"{"Regions":{"1":{"RegionID":1,"Nodes":[]},"2":null}}"#);
        assert_eq!(merge(map).regions, Some(BTreeMap::new()));
    }
}
