//! `meshcontrol derp-map show`.

use clap::Args;
use mesh_cli::yes_no;
use mesh_wire::{DerpMap, DerpNode, DerpRegion};

use super::source::{SourceArgs, regions};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    source: SourceArgs,
}

impl ShowArgs {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let map = self.source.map(session).await?;
        session.output().value(&map, || table(&map))
    }
}

fn table(map: &DerpMap) -> String {
    let header =
        ["region", "code", "home", "score", "node", "host", "relay", "stun", "certificate"];
    let scores = map.home_params.as_ref().and_then(|params| params.region_score.as_ref());
    let rows = regions(map).flat_map(|region| {
        let score = scores.and_then(|scores| scores.get(&region.region_id));
        let score = score.map(ToString::to_string).unwrap_or_default();
        region.nodes.iter().map(move |node| row(region, &score, node))
    });
    mesh_cli::table(header, rows)
}

fn row(region: &DerpRegion, score: &str, node: &DerpNode) -> [String; 9] {
    let may_be_home = !region.no_measure_no_home && !region.avoid;
    let port = |port: i32, default: u16| match port {
        0 => default.to_string(),
        -1 => String::new(),
        port => port.to_string(),
    };
    let relay = if node.stun_only { String::new() } else { port(node.derp_port, 443) };
    let certificate = match node.cert_name.as_str() {
        "" if node.insecure_for_tests => "any".to_owned(),
        // The digits of a pin would fill the line, and are compared by nobody by eye.
        pin if pin.contains(':') => "pinned".to_owned(),
        name => name.to_owned(),
    };
    [
        region.region_id.to_string(),
        region.region_code.clone(),
        yes_no(may_be_home),
        score.to_owned(),
        node.name.clone(),
        node.host_name.clone(),
        relay,
        port(node.stun_port, 3478),
        certificate,
    ]
}
