//! The DERP map of a running server, and the verbs about it.

use serde_json::{Value, json};

use crate::fake::{Fake, Run, program};
use crate::serve::{Place, Served};

fn region(id: u32) -> String {
    format!("regions: {{{id}: {{nodes: [{{name: {id}a, hostname: derp.example.com}}]}}}}")
}

/// A server with a file of DERP regions.
fn serve(place: &Place) -> Served<'_> {
    let path = place.path("derp.yaml");
    place.serve_with("", &[("MESHCONTROL_DERP_PATHS", path.to_str().unwrap())])
}

/// The ids of the regions that clients are told of.
fn regions(server: &Served<'_>) -> Vec<String> {
    let map = server.ask("GET", "/derp/map", "");
    map["Regions"].as_object().unwrap().keys().cloned().collect()
}

/// Runs a verb for the server at a place.
fn run(place: &Place, line: &str) -> Run {
    let mut command = program(line);
    command.env("MESHCONTROL_CONFIG", place.path("config.yaml"));
    command.env("MESHCONTROL_DATA_DIR", place.path("data"));
    command.output().unwrap().into()
}

#[test]
fn a_file_that_changes_changes_the_map_of_a_running_server() {
    let place = Place::new();
    place.write("derp.yaml", &region(900));
    let server = serve(&place);
    assert_eq!(regions(&server), ["900", "999"]);
    place.write("derp.yaml", &region(901));
    server.until("the other region", || regions(&server) == ["901", "999"]);
    place.write("derp.yaml", "regions: {0: {}}");
    server.until("it is told", || place.log().contains("what it said before stays"));
    assert_eq!(regions(&server), ["901", "999"]);
    place.write("derp.yaml", "regions: {902: null}");
    server.until("only the server's own", || regions(&server) == ["999"]);
    server.stop();
}

#[test]
fn the_servers_own_relay_passes_the_check() {
    let place = Place::new();
    let server = place.serve("");
    let checked = run(&place, "derp-map check --output json");
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", checked.out);
    let report: Value = serde_json::from_str(&checked.out).unwrap();
    let node = &report["regions"][0]["nodes"][0];
    assert_eq!((&node["usable"], &node["login"]), (&json!(true), &json!("refused")));
    assert!(node["ipv4"]["relay_ms"].is_number() && node["ipv4"]["stun_ms"].is_number(), "{node}");

    let shown = run(&place, "derp-map show --output json").printed();
    place.write("shown.json", &shown);
    let file = place.path("shown.json");
    let again = run(&place, &format!("derp-map show --output json --file {}", file.display()));
    assert_eq!(again.printed(), shown, "what is shown can be a file");
    server.stop();
}

#[test]
fn a_node_that_cannot_be_used_fails_the_check() {
    let place = Place::new();
    // Nobody listens on port 1 of the loopback.
    let node =
        "{name: 900a, hostname: localhost, ipv4: 127.0.0.1, ipv6: none, derpport: 1, stunport: -1}";
    place.write("derp.yaml", &format!("regions: {{900: {{regioncode: home, nodes: [{node}]}}}}"));
    let file = place.path("derp.yaml");
    let run = run(&place, &format!("derp-map check --file {}", file.display()));
    assert_eq!(run.code, 1);
    insta::assert_snapshot!(format!("{}---\n{}", run.out, run.err));
}

#[test]
fn a_map_is_shown_as_a_table() {
    let node = |name: &str, host: &str| json!({ "Name": name, "RegionID": 1, "HostName": host });
    let pin = format!("sha256-raw:{}", "0".repeat(64));
    let fake = Fake::serving(json!({
        "HomeParams": { "RegionScore": { "2": 0.5 } },
        "Regions": {
            "1": {
                "RegionID": 1,
                "RegionCode": "fra",
                "RegionName": "Frankfurt",
                "Nodes": [node("1a", "a.example.com"), node("1b", "b.example.com")],
            },
            "2": {
                "RegionID": 2,
                "RegionCode": "home",
                "RegionName": "At home",
                "NoMeasureNoHome": true,
                "Nodes": [{
                    "Name": "2a", "RegionID": 2, "HostName": "192.0.2.1", "CertName": pin, "DERPPort": 8443,
                    "STUNPort": -1,
                }],
            },
        },
    }));
    insta::assert_snapshot!(fake.run("derp-map show").printed());
    assert_eq!(fake.asked()[0].line, "GET /api/v1/derp/map");
    let run = fake.run("derp-map show --region 3");
    assert_eq!(run.err, "Error: the map has no region 3: it has 1, 2\n");
}

#[test]
fn without_a_server_the_configured_sources_are_meant() {
    let place = Place::new();
    place.write("derp.yaml", &region(900));
    place.write("config.yaml", "derp: {paths: [derp.yaml]}");
    let run = run(&place, "derp-map show");
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("900a"), "{}", run.out);
    assert!(run.err.starts_with("Warning: no server runs here"), "{}", run.err);
}
