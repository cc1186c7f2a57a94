//! `meshnode netcheck`.

use std::time::Duration;

use mesh_cli::{Output, list, properties, table, yes_no};
use mesh_node::loopback::Netcheck;
use mesh_wire::DerpMap;

use crate::client::LocalClient;

/// Shows what the network around the node is like.
pub(crate) async fn run(client: &LocalClient, output: Output) -> anyhow::Result<()> {
    let (netcheck, derp_map) = (client.netcheck().await?, client.derp_map().await?);
    output.value(&netcheck, || show(&netcheck, &derp_map))
}

fn show(netcheck: &Netcheck, derp_map: &DerpMap) -> String {
    let seen_as = [netcheck.global_v4, netcheck.global_v6].into_iter().flatten();
    let endpoints = netcheck.endpoints.iter();
    let facts = properties([
        ("UDP", yes_no(netcheck.udp)),
        ("Seen as", list(&seen_as.map(|address| address.to_string()).collect::<Vec<_>>())),
        ("Endpoints", list(&endpoints.map(ToString::to_string).collect::<Vec<_>>())),
        ("Port mapping", port_mapping(netcheck)),
    ]);
    let mut regions: Vec<_> = derp_map.regions.iter().flatten().collect();
    // The nearest first, and those that did not answer last.
    regions.sort_by_key(|(id, _)| netcheck.region_latency.get(id).copied().unwrap_or(u64::MAX));
    let rows = regions.into_iter().map(|(id, region)| {
        let latency = netcheck.region_latency.get(id);
        let latency = latency.map(|nanos| Duration::from_nanos(*nanos).as_secs_f64() * 1e3);
        let is_home = netcheck.preferred_derp == *id;
        [
            id.to_string(),
            region.region_code.clone(),
            region.region_name.clone(),
            latency.map(|millis| format!("{millis:.1} ms")).unwrap_or_default(),
            if is_home { "home" } else { "" }.to_owned(),
        ]
    });
    format!("{facts}\n\n{}", table(["region", "code", "name", "latency", "home"], rows))
}

/// By what the gateway lets itself be asked for a port, and what came of it.
fn port_mapping(netcheck: &Netcheck) -> String {
    let (Some(pmp), Some(pcp)) = (netcheck.pmp, netcheck.pcp) else {
        return "not asked for".to_owned();
    };
    let services = [pmp.then_some("NAT-PMP"), pcp.then_some("PCP")];
    let services: Vec<_> = services.into_iter().flatten().collect();
    match netcheck.port_mapped {
        _ if services.is_empty() => "no answer".to_owned(),
        Some(address) => format!("{address} ({})", services.join(", ")),
        None => format!("refused ({})", services.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_port_mapping_is_told() {
        let told = |json| port_mapping(&serde_json::from_str(json).unwrap());
        assert_eq!(told("{}"), "not asked for");
        assert_eq!(told(r#"{"PMP": false, "PCP": false}"#), "no answer");
        assert_eq!(told(r#"{"PMP": true, "PCP": true}"#), "refused (NAT-PMP, PCP)");
    }

    #[test]
    fn regions_are_shown_from_near_to_far_and_silent_ones_last() {
        let derp_map = r#"{"Regions": {
            "1": {"RegionID": 1, "RegionCode": "nyc", "RegionName": "New York", "Nodes": []},
            "2": {"RegionID": 2, "RegionCode": "fra", "RegionName": "Frankfurt", "Nodes": []},
            "3": {"RegionID": 3, "RegionCode": "syd", "RegionName": "Sydney", "Nodes": []}
        }}"#;
        let netcheck = r#"{
            "UDP": true, "GlobalV4": "192.0.2.1:41641", "PreferredDERP": 2,
            "RegionLatency": {"1": 80000000, "2": 1500000}, "Endpoints": ["192.0.2.1:41641"],
            "PMP": true, "PCP": false, "PortMapped": "192.0.2.1:41641"
        }"#;
        let shown = show(
            &serde_json::from_str(netcheck).unwrap(),
            &serde_json::from_str(derp_map).unwrap(),
        );
        assert_eq!(
            shown,
            "\
UDP:           yes
Seen as:       192.0.2.1:41641
Endpoints:     192.0.2.1:41641
Port mapping:  192.0.2.1:41641 (NAT-PMP)

REGION  CODE  NAME       LATENCY  HOME
2       fra   Frankfurt  1.5 ms   home
1       nyc   New York   80.0 ms  -
3       syd   Sydney     -        -"
        );
    }
}
