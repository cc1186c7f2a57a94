//! What a person needs to know of a relay that has started: how clients are to be told of it.

use mesh_cli::Output;
use mesh_keys::NodePublic;
use mesh_wire::{DerpMap, DerpRegion};
use serde::Serialize;

use super::region::to_yaml;

/// A relay as it is told in the forms for programs.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    /// The key of the relay, by which clients recognise it.
    public_key: String,
    /// The certificate's pin; empty if clients trust it by its name.
    pin: &'a str,
    derp_map: DerpMap,
}

/// Prints what to do with the relay.
pub(crate) fn print(output: Output, key: &NodePublic, region: &DerpRegion) -> anyhow::Result<()> {
    let node = region.nodes.first();
    let pin = node.map_or("", |node| &node.cert_name);
    let regions = Some([(region.region_id, region.clone())].into());
    let derp_map = DerpMap { regions, ..DerpMap::default() };
    output.value(&Ready { public_key: key.to_string(), pin, derp_map }, || text(key, pin, region))
}

fn text(key: &NodePublic, pin: &str, region: &DerpRegion) -> String {
    let trust = match pin {
        "" => "Clients trust its certificate by its name, if an authority has signed it that they know.".to_owned(),
        pin => format!("Clients trust its certificate by the pin {pin}."),
    };
    format!(
        "The relay is ready, its key is {key}.\n{trust}\n\
         Tell clients of it: put this into a file that derp.paths of their control server names.\n\n{}",
        to_yaml(region)
    )
}
