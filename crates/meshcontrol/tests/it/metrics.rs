//! The operator's listener of a running server, and the pages that tell of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::derp;
use crate::serve::{Place, Served, http_get};

/// A family of an exposition: its type, and its samples as they are written.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, f64)>,
}

/// Reads an exposition, as strict as Prometheus is.
///
/// Source: the `OpenMetrics` specification 1.0, section 4.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            name.clone_into(&mut last);
            let family = families.entry(last.clone()).or_default();
            assert!(family.kind.is_empty(), "{name} is there twice");
            kind.clone_into(&mut family.kind);
        } else if !line.starts_with("# HELP ") {
            let family = families.get_mut(&last).unwrap();
            family.samples.push(sample(line, &last, &family.kind));
        }
    }
    for (name, family) in &families {
        check(name, family);
    }
    families
}

fn sample(line: &str, family: &str, kind: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let name = series.split('{').next().unwrap();
    let suffixes: &[&str] = match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("{family} is of type {other}"),
    };
    let suffix = name.strip_prefix(family).unwrap();
    assert!(suffixes.contains(&suffix), "{line} is no sample of the {kind} {family}");
    let value: f64 = value.parse().unwrap();
    assert!(value >= 0.0, "{line}");
    (series.to_owned(), value)
}

fn check(name: &str, family: &Family) {
    let series: BTreeSet<&String> = family.samples.iter().map(|(series, _)| series).collect();
    assert_eq!(series.len(), family.samples.len(), "{name} has a series twice");
    assert!(!series.is_empty(), "{name} has no series: begin it at zero");
    let units = ["_seconds", "_bytes"];
    let is_named = units.iter().any(|unit| name.ends_with(unit));
    assert!(is_named || !name.ends_with("_ms"), "{name} is in a unit that is no base unit");
    if family.kind == "histogram" {
        let mut before = 0.0;
        for (series, value) in &family.samples {
            if series.contains("_bucket") {
                assert!(*value >= before, "{series} is below the bucket before it");
                before = if series.contains("+Inf") { 0.0 } else { *value };
            }
        }
    }
}

/// Names as they are in queries.
fn names(families: &BTreeMap<String, Family>) -> BTreeSet<String> {
    let name = |(name, family): (&String, &Family)| match family.kind.as_str() {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.clone(),
    };
    families.iter().map(name).collect()
}

/// Everything in a text that looks like one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words =
        words.filter(|word| word.starts_with("meshcontrol_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate").join(name);
    fs::read_to_string(path).unwrap()
}

/// What the operator's listener of a server answers to a GET.
fn get(server: &Served<'_>, path: &str, header: &str) -> (u16, String) {
    http_get(server.metrics_address(), path, header)
}

#[test]
fn what_is_shown_is_what_is_documented() {
    let place = Place::new();
    let server = place.serve("");
    server.ask("GET", "/health", "");
    let (status, text) = get(&server, "/metrics", "");
    assert_eq!(status, 200);
    let [by_url, by_list] = derp::expositions();
    let shown: BTreeSet<String> =
        [text, by_url, by_list].iter().flat_map(|text| names(&parse(text))).collect();

    let rows = page("metrics.md");
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.flat_map(metrics_in).collect();
    let missing: Vec<_> = shown.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&shown).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not told: {missing:?}; not there: {gone:?}");

    let is_known = |name: &String| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        shown.contains(name) || family.is_some_and(|family| shown.contains(family))
    };
    let dashboard: Value = serde_json::from_str(&page("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let queries: Vec<String> = queries.chain([page("alerts.yml")]).collect();
    assert!(queries.len() > 50);
    for query in queries {
        let unknown: Vec<_> =
            metrics_in(&query).into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
        assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
    }
}

#[test]
fn whoever_looks_inside_is_an_admin() {
    let place = Place::new();
    let server = place.serve("");
    for path in ["/debug", "/debug/overview", "/debug/config", "/debug/nodes/1/map"] {
        assert_eq!(get(&server, path, "").0, 401, "{path}");
        let wrong = format!("Authorization: Bearer tskey-api-{}\r\n", "a".repeat(12));
        assert_eq!(get(&server, path, &wrong).0, 401, "{path}");
    }
    let key = server.ask("POST", "/apikey", "{}")["apiKey"].as_str().unwrap().to_owned();
    let key = format!("Authorization: Bearer {key}\r\n");
    let (status, config) = get(&server, "/debug/config", &key);
    assert_eq!(status, 200, "{config}");
    let config: Value = serde_json::from_str(&config).unwrap();
    let settings = config.as_array().unwrap();
    let setting = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(setting("metrics_listen_addr")["value"], "127.0.0.1:0");
    assert_eq!(setting("log.level")["from"], "default");
    let (status, overview) = get(&server, "/debug/overview", &key);
    assert_eq!(status, 200);
    let overview: Value = serde_json::from_str(&overview).unwrap();
    assert_eq!((&overview["nodes"], &overview["api_keys"]), (&0.into(), &1.into()));
    for path in ["/debug/policy", "/debug/streams"] {
        assert_eq!(get(&server, path, &key).0, 200, "{path}");
    }
    assert_eq!(get(&server, "/debug/nodes/1/map", &key).0, 404);
}

#[test]
fn health_is_told_on_the_operators_listener() {
    let place = Place::new();
    let server = place.serve("");
    assert_eq!(get(&server, "/livez", ""), (200, "ok\n".to_owned()));
    let (status, ready) = get(&server, "/readyz", "");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["checks"]["database"]), (200, &true.into()));
}
