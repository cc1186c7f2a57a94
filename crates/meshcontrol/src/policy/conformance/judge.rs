//! The rules by which views are compared.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_policy::{IpRange, IpRanges};
use serde_json::{Map, Value, json};

use super::Case;
use super::difference::Difference;

/// Compares an answer with what was captured, fact by fact.
pub(super) fn judge(case: &Case, answer: &Value) -> Vec<Difference> {
    let differ = |fact, expected, got| vec![Difference::new(&case.id, fact, expected, got)];
    let message = answer["error_message"].as_str().unwrap_or_default();
    match (case.accepted, answer["accepted"] == json!(true)) {
        (false, false) if message.contains(&case.error_message) => Vec::new(),
        (false, false) => differ("message", json!(case.error_message), json!(message)),
        (false, true) => differ("accepted", json!(case.error_message), Value::Null),
        (true, false) => differ("rejected", Value::Null, json!(message)),
        (true, true) => views(case, &answer["expect"]),
    }
}

fn views(case: &Case, views: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (node, expected) in &case.expect {
        let mut judged = Judged { case, node, differences: &mut differences };
        judged.view(expected, &views[node]);
    }
    differences
}

/// One node of a case.
struct Judged<'a> {
    case: &'a Case,
    node: &'a str,
    differences: &'a mut Vec<Difference>,
}

impl Judged<'_> {
    fn view(&mut self, expected: &Value, got: &Value) {
        for name in names(expected, got) {
            let (expected, got) = (&expected[name], &got[name]);
            match name {
                "peers" => self.peers(expected, got),
                "packet_filter_rules" => self.fact(name, self.filter(expected), self.filter(got)),
                "ssh_rules" => self.fact(name, ssh(expected), ssh(got)),
                "primary_routes" if self.is_unstable(self.node) => {}
                _ => self.fact(name, plain(expected), plain(got)),
            }
        }
    }

    fn peers(&mut self, expected: &Value, got: &Value) {
        let names_of = |peers: &Value| -> Vec<String> {
            peers.as_object().into_iter().flat_map(Map::keys).cloned().collect()
        };
        self.fact("peers", json!(names_of(expected)), json!(names_of(got)));
        for peer in names_of(expected).iter().filter(|peer| !got[peer.as_str()].is_null()) {
            let (expected, got) = (&expected[peer], &got[peer]);
            for name in names(expected, got) {
                let is_skipped = name == "online" || name == "routes" && self.is_unstable(peer);
                if !is_skipped {
                    self.fact(&format!("{peer}.{name}"), plain(&expected[name]), plain(&got[name]));
                }
            }
        }
    }

    fn fact(&mut self, name: &str, expected: Value, got: Value) {
        if expected != got {
            let fact = format!("{} {name}", self.node);
            self.differences.push(Difference::new(&self.case.id, fact, expected, got));
        }
    }

    fn is_unstable(&self, node: &str) -> bool {
        self.case.unstable.iter().any(|fact| fact.strip_prefix("routes:") == Some(node))
    }

    /// A list of rules, in which the order of rules counts, but not that of addresses.
    fn filter(&self, rules: &Value) -> Value {
        elements(rules)
            .map(|rule| {
                let mut rule = rule.as_object().unwrap().clone();
                rule.values_mut().for_each(sort);
                let grants = rule.get_mut("CapGrant").and_then(Value::as_array_mut);
                for grant in grants.into_iter().flatten() {
                    sort(&mut grant["Dsts"]);
                    let values = grant["CapMap"].as_object_mut().map(Map::values_mut);
                    values.into_iter().flatten().for_each(|values| *values = or_null(values));
                }
                if self.case.compare.src_ips.as_deref() == Some("address-set")
                    && let Some(sources) = rule.get_mut("SrcIPs")
                {
                    *sources = address_set(sources);
                }
                rule.retain(|_, value| !is_empty(value));
                Value::Object(rule)
            })
            .collect()
    }
}

/// Names of the members of either.
fn names<'a>(one: &'a Value, other: &'a Value) -> BTreeSet<&'a str> {
    [one, other]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Absent, null and empty are the same.
fn or_null(value: &Value) -> Value {
    if is_empty(value) { Value::Null } else { value.clone() }
}

/// A list of routes or addresses is a set, an object's members are as they are.
fn plain(value: &Value) -> Value {
    let mut value = or_null(value);
    if let Value::Object(members) = &mut value {
        members.values_mut().for_each(|value| *value = or_null(value));
    }
    sort(&mut value);
    value
}

/// Puts texts and port ranges in order. Capability grants keep theirs.
fn sort(value: &mut Value) {
    if let Value::Array(elements) = value
        && elements.iter().all(|element| element["CapMap"].is_null())
    {
        elements.sort_by_cached_key(Value::to_string);
    }
}

/// Rules in order. A check has only to be one: what it is asked for is up to the server.
fn ssh(rules: &Value) -> Value {
    elements(rules)
        .map(|rule| {
            let mut rule = rule.as_object().unwrap().clone();
            rule.get_mut("principals").into_iter().for_each(sort);
            if let Some(action) = rule.get_mut("action")
                && !action["holdAndDelegate"].is_null()
                && action["accept"] != json!(true)
            {
                *action = json!("check");
            }
            rule.retain(|_, value| !is_empty(value));
            Value::Object(rule)
        })
        .collect()
}

/// Texts of sources as the prefixes of the addresses that they make up together.
fn address_set(texts: &Value) -> Value {
    let mut set = IpRanges::default();
    for text in elements(texts).filter_map(Value::as_str) {
        set.extend(&addresses(text));
    }
    set.prefixes().map(|prefix| json!(prefix)).collect()
}

fn addresses(text: &str) -> IpRanges {
    match text.split_once('-') {
        Some((first, last)) => {
            let range = IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
            range.prefixes().collect()
        }
        None if text == "*" => IpRanges::all(),
        None => text.parse::<IpAddr>().map_or_else(|_| text.parse().unwrap(), IpNet::from).into(),
    }
}

mod tests;
