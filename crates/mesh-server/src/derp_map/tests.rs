use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn source(text: &str) -> DerpSource {
    DerpSource::parse_sound(text.as_bytes()).expect(text)
}

fn region(id: u32, host: &str) -> String {
    format!("regions: {{{id}: {{nodes: [{{name: {id}a, hostname: {host}}}]}}}}")
}

fn check_refused(text: &str, expected: &str) {
    let error = DerpSource::parse_sound(text.as_bytes()).expect_err(text);
    assert_eq!(error.to_string(), expected, "{text}");
}

/// A region 900 with one node, of which this is said too.
fn check_node(fields: &str, expected: &str) {
    let text = format!("regions: {{900: {{nodes: [{{{fields}}}]}}}}");
    check_refused(&text, &format!("region 900, node {expected}"));
}

#[test]
fn headscales_yaml_reads_like_tailscales_json() {
    let yaml = "regions:\n  900:\n    regionid: 900\n    regioncode: home\n    regionname: At home\n    \
                nodes:\n      - name: 900a\n        regionid: 900\n        hostname: derp.example.com\n        \
                ipv4: 192.0.2.1\n        stunport: 3478\n        derpport: 443\n        canport80: true\n";
    let json = r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"home","RegionName":"At home","Nodes":[
        {"Name":"900a","RegionID":900,"HostName":"derp.example.com","IPv4":"192.0.2.1","STUNPort":3478,
         "DERPPort":443,"CanPort80":true}]}}}"#;
    assert_eq!(source(yaml), source(json));
    assert_eq!(source(&json.replace("  ", "\t")), source(json));
}

#[test]
fn ids_that_are_left_out_are_those_of_the_key() {
    let map = merge(&[], &[source(&region(900, "derp.example.com"))]).expect("a map");
    let regions = map.regions.expect("regions");
    let region = &regions[&DerpRegionId(900)];
    assert_eq!(
        (region.region_id, region.nodes[0].region_id),
        (DerpRegionId(900), DerpRegionId(900))
    );
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let text = "regions: {900: {regionid: 901, nodes: []}, 0: {nodes: [{name: a, hostname: h, stunonly: true}]}}";
    check_refused(
        text,
        "region 0: 0 is no region for clients: number it from 1 on; \
         region 0: all its nodes are stunonly, so whoever makes it their home is not reached: add a relay; \
         region 900: its regionid is 901: make it 900, or leave it out; \
         region 900: it has no nodes: give it one, or make it `null`, which takes it out of the map",
    );
}

#[test]
fn nodes_that_clients_could_not_reach_are_refused() {
    check_node("hostname: h", "number 1: it has no name: give it one, such as 900a");
    check_node(
        "name: a, hostname: h, regionid: 1",
        "a: its regionid is 1: make it 900, or leave it out",
    );
    check_node(
        "name: a, hostname: 'https://h'",
        "a: hostname \"https://h\" is no host: name one that clients can look up, or an address",
    );
    check_node(
        "name: a, hostname: h, certname: 'sha256-raw:12'",
        "a: certname \"sha256-raw:12\" is neither a name nor sha256-raw: and the 64 digits of a certificate's SHA-256",
    );
    check_node(
        "name: a, hostname: h, ipv4: '::1'",
        "a: ipv4 \"::1\" is no such address: write one, none, or nothing to have the hostname looked up",
    );
    check_node(
        "name: a, hostname: h, ipv4: none, ipv6: none",
        "a: ipv4 and ipv6 are both none, so nobody can reach it: allow one of them",
    );
    check_node("name: a, hostname: h, stuntestip: h", "a: stuntestip \"h\" is no address");
    check_node(
        "name: a, hostname: h, derpport: 70000",
        "a: derpport 70000 is no port: write one up to 65535, or 0 for 443",
    );
    check_node(
        "name: a, hostname: h, stunport: -2",
        "a: stunport -2 is no port: write one up to 65535, or 0 for 3478, -1 for none",
    );
    check_node(
        "name: a, hostname: h}, {name: a, hostname: h",
        "a: another node has this name: give it one of its own",
    );
}

#[test]
fn scores_are_positive_factors() {
    check_refused(
        "homeparams: {regionscore: {7: -1.5}}",
        "region 7: score -1.5 is no factor on a latency: below 1 favours the region, above 1 makes it seem farther",
    );
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    check_refused(
        "regions:\n  900:\n    nodes: 5",
        "not a DERP map: regions.900.nodes: invalid type: integer `5`, expected an array or null",
    );
    check_refused(
        "regions: {900: {nodes: [",
        "not a DERP map: unclosed bracket '[' at line 1, column 24",
    );
}

#[test]
fn what_is_no_map_is_refused() {
    for text in ["", "<html>", "[]", "{\"Regions\":{\"x\":{}}}", "{\"Regions\":{\"-1\":{}}}", "{"] {
        match DerpSource::parse_sound(text.as_bytes()) {
            Ok(source) => {
                assert!(matches!(merge(&[], &[source]), Err(DerpMapError::Empty)), "{text}");
            }
            Err(error) => assert!(matches!(error, DerpMapError::Malformed(_)), "{text}: {error:?}"),
        }
    }
    let long = vec![b' '; MAP_BYTES_MAX + 1];
    assert!(matches!(DerpSource::parse(&long), Err(DerpMapError::TooLarge)));
}

#[test]
fn digits_of_pins_are_written_as_stock_clients_compare_them() {
    let pin = "AB".repeat(32);
    let text = format!(
        "regions: {{9: {{nodes: [{{name: a, hostname: h, certname: 'sha256-raw:{pin}'}}]}}}}"
    );
    let map = merge(&[], &[source(&text)]).expect("a map");
    let node = &map.regions.expect("regions")[&DerpRegionId(9)].nodes[0];
    assert_eq!(node.cert_name, format!("sha256-raw:{}", pin.to_lowercase()));
}

#[test]
fn later_sources_win_and_null_takes_away() {
    let fetched = source(&format!("{}\n", region(1, "one.example")));
    let first = source(&region(2, "two.example"));
    let later = source("regions: {1: null, 2: {nodes: [{name: x, hostname: later.example}]}}");
    let map = merge(std::slice::from_ref(&fetched), &[first.clone(), later]).expect("a map");
    let regions = map.regions.expect("regions");
    assert_eq!(regions.keys().map(|id| id.0).collect::<Vec<_>>(), [2]);
    assert_eq!(regions[&DerpRegionId(2)].nodes[0].host_name, "later.example");
    let back = merge(
        &[fetched],
        &[source("regions: {1: null}"), source(&region(1, "back.example")), first],
    );
    assert_eq!(back.expect("a map").regions.expect("regions").len(), 2);
}

#[test]
fn regions_of_urls_can_be_left_out_whole() {
    let fetched = [source(&region(1, "one.example"))];
    let own = source(&format!("omitdefaultregions: true\n{}", region(2, "two.example")));
    let map = merge(&fetched, &[own]).expect("a map");
    assert_eq!(map.regions.expect("regions").keys().map(|id| id.0).collect::<Vec<_>>(), [2]);
    assert!(!map.omit_default_regions);
}

/// What is fetched of a server that answers this.
async fn fetched(status: &str, body: &str) -> Result<(DerpSource, Problems), DerpMapError> {
    // Fails only if another test was here before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/map", listener.local_addr().expect("an address"));
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let serve = async {
        let (mut socket, _) = listener.accept().await.expect("a client");
        assert_ne!(socket.read(&mut [0; 4096]).await.expect("a request"), 0);
        // Who has read enough hangs up.
        let _ = socket.write_all(answer.as_bytes()).await;
        socket
    };
    tokio::join!(DerpSource::fetch(&url), serve).0
}

#[tokio::test]
async fn what_makes_no_sense_in_somebody_elses_map_is_left_out() {
    let regions = r#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"one.example"}]},"2":{"Nodes":[]},"3":null}}"#;
    let (source, problems) = fetched("200 OK", regions).await.expect("a map");
    let expected =
        r#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"one.example"}]},"3":null}}"#;
    assert_eq!(source, self::source(expected));
    assert_eq!(problems.iter().map(|problem| problem.region.0).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_map_that_says_nothing_is_not_taken() {
    for nothing in ["{}", r#"{"Regions":{}}"#, r#"{"Regions":{"1":null}}"#] {
        let error = fetched("200 OK", nothing).await.expect_err(nothing);
        assert!(matches!(error, DerpMapError::Empty), "{nothing}: {error:?}");
    }
    let error = fetched("502 Bad Gateway", "{}").await.expect_err("an error page");
    assert!(matches!(error, DerpMapError::Fetch(_)), "{error:?}");
    let long = " ".repeat(MAP_BYTES_MAX + 1);
    let error = fetched("200 OK", &long).await.expect_err("too long");
    assert!(matches!(error, DerpMapError::TooLarge), "{error:?}");
}

#[test]
fn no_map_is_ever_empty() {
    assert!(matches!(merge(&[], &[]), Err(DerpMapError::Empty)));
    let fetched = source(&region(1, "one.example"));
    let own = source("regions: {1: null}");
    assert!(matches!(merge(&[fetched], &[own]), Err(DerpMapError::Empty)));
}

fn ids(map: &DerpMap) -> Vec<u32> {
    map.regions.iter().flatten().map(|(id, _)| id.0).collect()
}

#[test]
fn names_are_unique_over_all_own_sources() {
    let [one, other] = [2, 1]
        .map(|id| source(&format!("regions: {{{id}: {{nodes: [{{name: a, hostname: h}}]}}}}")));
    let error = merge(&[], &[one, other]).expect_err("shared").to_string();
    assert_eq!(error, "node a is in region 1 and in region 2: give one of them another name");
}

#[test]
fn a_fetched_region_whose_name_is_taken_is_left_out() {
    let fetched = source(
        "regions: {1: {nodes: [{name: 1a, hostname: h}]}, 901: {nodes: [{name: 900a, hostname: h}]}}",
    );
    let own = source(&region(900, "own.example"));
    let (map, problems) = merge_found(&[fetched], &[own]).expect("a map");
    assert_eq!(ids(&map), [1, 900]);
    assert_eq!(
        problems.to_string(),
        "region 901, node 900a: region 900, which wins over this one, has a node of this name: rename that if it is \
         yours"
    );
}

#[test]
fn of_fetched_regions_with_the_same_name_the_later_stays() {
    let [one, later] = [1, 2]
        .map(|id| source(&format!("regions: {{{id}: {{nodes: [{{name: a, hostname: h}}]}}}}")));
    let (map, problems) = merge_found(&[one.clone(), later], &[]).expect("a map");
    assert_eq!((ids(&map), problems.iter().count()), (vec![2], 1));
    let gone = source("regions: {2: null}");
    let (map, problems) = merge_found(&[one], &[gone]).expect("a map");
    assert_eq!((ids(&map), problems.is_empty()), (vec![1], true), "nobody has the name now");
}

#[test]
fn fetched_scores_are_of_the_regions_that_their_map_gives() {
    let text = |id| format!("{}\nhomeparams: {{regionscore: {{1: 2, 2: 2}}}}", region(id, "h"));
    let (fetched, own) = (source(&text(1)), source(&region(2, "own.example")));
    let scores = |map: DerpMap| map.home_params.and_then(|params| params.region_score);
    let map = merge(std::slice::from_ref(&fetched), &[own]).expect("a map");
    assert_eq!(scores(map), Some([(DerpRegionId(1), 2.0)].into()));
    let own = source(&region(1, "own.example"));
    assert_eq!(scores(merge(&[fetched], &[own]).expect("a map")), Some([].into()));
}

#[tokio::test]
async fn fetched_scores_of_regions_that_are_left_out_are_left_out_too() {
    let node = |id: u32| format!(r#""{id}":{{"Nodes":[{{"Name":"{id}a","HostName":"h"}}]}}"#);
    let scores = r#"{"1":0.5,"2":0,"3":2}"#;
    let text = format!(
        r#"{{"Regions":{{{},{}}},"HomeParams":{{"RegionScore":{scores}}}}}"#,
        node(1),
        node(2)
    );
    let (source, problems) = fetched("200 OK", &text).await.expect("a map");
    assert_eq!(source.scores, Some([(DerpRegionId(1), 0.5)].into()));
    assert_eq!(problems.iter().map(|problem| problem.region.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn scores_are_those_of_regions_that_there_are() {
    let scored = source("homeparams: {regionscore: {1: 0.5, 3: 2}}");
    let later = source("homeparams: {regionscore: {2: 1.5}}");
    let map =
        merge(&[source(&region(1, "one.example"))], &[scored, source(&region(2, "h")), later]);
    let params = map.expect("a map").home_params;
    assert_eq!(
        params.and_then(|params| params.region_score),
        Some([(DerpRegionId(1), 0.5), (DerpRegionId(2), 1.5)].into())
    );
    let unscored = merge(&[], &[source(&region(1, "one.example"))]).expect("a map");
    assert_eq!(unscored.home_params, None);
}
