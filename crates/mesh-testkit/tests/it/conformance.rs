//! The naive evaluator against what the real service did, where the captures are at hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use mesh_policy::{
    CapGrant, Capabilities, Device, FilterRule, NetPortRange, NodeFacts, NodeOwner, NodeView,
    PeerView, Policy, RawJson, Role, SshAccess, UserFacts, active_routes,
};
use mesh_testkit::Naive;
use serde_json::{Value, json};

/// A tailnet of the captures.
struct Topology {
    users: Vec<UserFacts>,
    nodes: Vec<NodeFacts>,
    names: BTreeMap<NodeId, String>,
    domains: Vec<String>,
    offered: BTreeMap<NodeId, (Vec<IpNet>, Option<Vec<IpNet>>)>,
}

#[test]
fn naive_evaluator_agrees_with_the_service() {
    let Some(directory) = directory() else {
        println!("skipped: no captured cases at hand");
        return;
    };
    let mut report = String::new();
    let (mut cases, mut failed) = (0, 0);
    for path in case_files(&directory) {
        let case = read(&path);
        let differences = differences(&directory, &case);
        cases += 1;
        if !differences.is_empty() {
            failed += 1;
            let _ = writeln!(report, "{}: {}", case["id"], case["policy"]);
            report.extend(differences.iter().take(6).map(|text| format!("    {text}\n")));
        }
    }
    println!("{} of {cases} cases agree", cases - failed);
    assert!(report.is_empty(), "{failed} of {cases} cases differ\n{report}");
}

#[expect(clippy::disallowed_methods, reason = "it names data of tests, not configuration")]
fn directory() -> Option<PathBuf> {
    let named = std::env::var("MESHCONTROL_CONFORMANCE_DIR").ok().map(PathBuf::from);
    let beside =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/policy");
    Some(named.unwrap_or_else(beside)).filter(|path| path.is_dir())
}

fn case_files(directory: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).expect("the cases are there");
        entries.map(|entry| entry.expect("readable").path()).collect()
    };
    let mut files: Vec<PathBuf> =
        entries(&directory.join("cases")).iter().flat_map(|category| entries(category)).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

/// What the naive evaluator has otherwise than the capture; a policy that must be refused because of its tests has
/// to fail them.
fn differences(directory: &Path, case: &Value) -> Vec<String> {
    let name = case["topology"].as_str().expect("a name");
    let mut topology = topology(&read(&directory.join(format!("topologies/{name}.json"))));
    let text = case["policy"].as_str().expect("a text");
    let policy = Policy::parse(text, Some(&topology.domains));
    let is_accepted = case["accepted"] == json!(true);
    let policy = match policy {
        Ok(policy) => policy,
        Err(_) if !is_accepted => return Vec::new(),
        Err(problems) => return vec![format!("is refused: {problems}")],
    };
    approve(&policy, &mut topology);
    let naive = Naive::new(&policy, &topology.users, &topology.nodes, &BTreeMap::new());
    if naive.passes_tests() != is_accepted {
        return vec![format!("its tests pass: {}", naive.passes_tests())];
    }
    let expected = case["expect"].as_object().into_iter().flatten();
    expected
        .flat_map(|(name, expected)| node_differences(case, &topology, &naive, name, expected))
        .collect()
}

fn approve(policy: &Policy, topology: &mut Topology) {
    let unapproved = topology.nodes.clone();
    let naive = Naive::new(policy, &topology.users, &unapproved, &BTreeMap::new());
    for node in &mut topology.nodes {
        let (offered, approved) = &topology.offered[&node.id];
        let by_policy = naive.auto_approved(node, offered);
        node.active_routes = active_routes(offered, approved.as_ref().unwrap_or(&by_policy)).into();
    }
}

fn node_differences(
    case: &Value,
    topology: &Topology,
    naive: &Naive<'_>,
    name: &str,
    expected: &Value,
) -> Vec<String> {
    let node = topology.nodes.iter().find(|node| topology.names[&node.id] == name).expect("a node");
    let view = naive.view(node.id).expect("a node");
    let ours = wire_view(topology, node, &view);
    let is_loose = case["compare"]["SrcIPs"] == json!("address-set");
    let keys =
        ["packet_filter_rules", "ssh_rules", "primary_routes", "addresses", "cap_map", "peers"];
    let mut differences = Vec::new();
    for key in keys {
        let (mut ours, mut theirs) = (normal(key, &ours[key]), normal(key, &expected[key]));
        if is_loose && key == "packet_filter_rules" {
            loosen(&mut ours);
            loosen(&mut theirs);
        }
        let says_something =
            |value: &Value| *value != json!([]) && *value != json!({}) && !value.is_null();
        if ours != theirs && (says_something(&ours) || says_something(&theirs)) {
            differences.push(format!("{name} {key}\n      ours   {ours}\n      theirs {theirs}"));
        }
    }
    differences
}

/// Leaves the number of sources: the one case of its kind has adjacent addresses.
fn loosen(rules: &mut Value) {
    for rule in rules.as_array_mut().into_iter().flatten() {
        rule["SrcIPs"] = json!(null);
    }
}

/// Lists whose order means nothing.
const UNORDERED: &[&str] =
    &["SrcIPs", "DstPorts", "Dsts", "principals", "routes", "addresses", "primary_routes"];

/// A fact as both sides are compared: without members that say nothing, lists without an order sorted. Of an SSH action
/// only whether it is a check counts; the values of capabilities are left as they are, but absent equals empty.
fn normal(key: &str, value: &Value) -> Value {
    let is_nothing = |value: &Value| {
        value.is_null() || *value == json!([]) || *value == json!({}) || *value == json!(false)
    };
    match value {
        Value::Object(members) if matches!(key, "CapMap" | "cap_map") => {
            let or_null =
                |value: &Value| if is_nothing(value) { Value::Null } else { value.clone() };
            members.iter().map(|(name, value)| (name.clone(), or_null(value))).collect()
        }
        Value::Object(members) if key == "action" => {
            json!(members.contains_key("holdAndDelegate"))
        }
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| *name != "online");
            let members = members.map(|(name, value)| (name.clone(), normal(name, value)));
            members.filter(|(_, value)| key == "peers" || !is_nothing(value)).collect()
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| normal("", item)).collect();
            if UNORDERED.contains(&key) {
                items.sort_by_key(Value::to_string);
            }
            items.into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn wire_view(topology: &Topology, node: &NodeFacts, view: &NodeView) -> Value {
    let peer = |(id, peer): (&NodeId, &PeerView)| {
        let facts = topology.nodes.iter().find(|node| node.id == *id).expect("a node");
        let is_exit = peer.routes.iter().any(|route| route.prefix_len() == 0);
        let view = json!({
            "routes": texts(&peer.routes),
            "addresses": if_hidden(facts, &peer.addresses),
            "cap_map": if is_exit { json!({"suggest-exit-node": null}) } else { Value::Null },
        });
        (topology.names[id].clone(), view)
    };
    json!({
        "packet_filter_rules": view.packet_filter.iter().map(wire_rule).collect::<Value>(),
        "ssh_rules": view.ssh.iter().map(wire_ssh).collect::<Value>(),
        "primary_routes": texts(&view.primary_routes),
        "addresses": if_hidden(node, &view.addresses),
        "cap_map": capabilities(&beyond_baseline(topology, node, &view.attributes)),
        "peers": view.peers.iter().map(peer).collect::<Value>(),
    })
}

/// Addresses, if they are not all that a node has.
fn if_hidden(node: &NodeFacts, shown: &[IpAddr]) -> Value {
    if node.addresses().eq(shown.iter().copied()) {
        return Value::Null;
    }
    texts(shown.iter().copied().map(IpNet::from))
}

fn wire_rule(rule: &FilterRule) -> Value {
    let dst = |dst: &NetPortRange| json!({"IP": *dst.ip, "Ports": {"First": dst.ports.first, "Last": dst.ports.last}});
    let grant = |grant: &CapGrant| json!({"Dsts": texts(&grant.dsts), "CapMap": capabilities(&grant.cap_map)});
    json!({
        "SrcIPs": texts(rule.src_ips.iter()),
        "DstPorts": rule.dst_ports.iter().map(dst).collect::<Value>(),
        "IPProto": rule.ip_proto.map(|proto| [proto]),
        "CapGrant": rule.cap_grant.iter().map(grant).collect::<Value>(),
    })
}

fn wire_ssh(access: &SshAccess) -> Value {
    let users: BTreeMap<&str, &str> =
        access.ssh_users.iter().map(|(asked, name)| (&**asked, &**name)).collect();
    json!({
        "principals": texts(access.principals.iter()),
        "sshUsers": users,
        "action": access.check_period.is_some(),
        "acceptEnv": texts(access.accept_env.iter()),
    })
}

fn capabilities(capabilities: &Capabilities) -> Value {
    let json = |raw: &RawJson| -> Value { serde_json::from_str(&raw.0).expect("JSON") };
    let values = |values: &Option<Vec<RawJson>>| match values {
        Some(values) => values.iter().map(json).collect(),
        None => Value::Null,
    };
    capabilities.iter().map(|(name, held)| (String::from(&**name), values(held))).collect()
}

/// Attributes that a node does not have anyway.
fn beyond_baseline(
    topology: &Topology,
    node: &NodeFacts,
    attributes: &Capabilities,
) -> Capabilities {
    let user = node.user();
    let is_owner = topology
        .users
        .iter()
        .any(|facts| user.is_none_or(|user| facts.id == user) && facts.role == Role::Owner);
    let mut left = attributes.clone();
    let mut baseline = vec![
        "https://tailscale.com/cap/file-sharing",
        "https://tailscale.com/cap/ssh",
        "https://tailscale.com/cap/tailnet-lock",
        "probe-udp-lifetime",
        "ssh-behavior-v1",
        "ssh-env-vars",
        "store-appc-routes",
    ];
    baseline.extend(is_owner.then_some("https://tailscale.com/cap/is-owner"));
    baseline.extend(user.map(|_| "https://tailscale.com/cap/is-admin"));
    left.retain(|name, _| !baseline.contains(&&**name));
    left
}

fn topology(value: &Value) -> Topology {
    let users: Vec<UserFacts> = array(&value["users"]).iter().map(user).collect();
    let mut entries = array(&value["nodes"]);
    entries.sort_by_key(|node| node["order"].as_u64().unwrap_or(u64::MAX));
    let (mut nodes, mut names, mut offered) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (index, entry) in entries.iter().enumerate() {
        let id = NodeId(u32::try_from(index + 1).expect("few nodes"));
        nodes.push(node(id, entry, &users));
        names.insert(id, entry["name"].as_str().expect("a name").to_owned());
        let approved = entry["approved_routes"].as_array().map(|list| prefixes(list));
        offered.insert(id, (prefixes(&array(&entry["advertised_routes"])), approved));
    }
    let domains = array(&value["domains"]).iter().map(|name| text(name).to_string()).collect();
    Topology { users, nodes, names, domains, offered }
}

fn user(value: &Value) -> UserFacts {
    UserFacts {
        id: UserId(value["id"].as_u64().expect("an id")),
        name: text(&value["name"]),
        email: text(&value["login"]),
        provider_id: "".into(),
        role: match value["role"].as_str() {
            Some("owner") => Role::Owner,
            Some("admin") => Role::Admin,
            _ => Role::Member,
        },
    }
}

fn node(id: NodeId, value: &Value, users: &[UserFacts]) -> NodeFacts {
    let owner = match value["user"].as_str() {
        Some(name) => {
            NodeOwner::User(users.iter().find(|user| &*user.name == name).expect("a user").id)
        }
        None => NodeOwner::Tags(array(&value["tags"]).iter().map(text).collect()),
    };
    NodeFacts {
        id,
        owner,
        ipv4: value["ipv4"].as_str().map(|text| text.parse().expect("an address")),
        ipv6: value["ipv6"].as_str().map(|text| text.parse().expect("an address")),
        active_routes: Arc::new([]),
        online: true,
        device: Arc::new(Device { os: "linux".into(), ..Device::default() }),
    }
}

fn text(value: &Value) -> Arc<str> {
    value.as_str().unwrap_or_default().into()
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn prefixes(values: &[Value]) -> Vec<IpNet> {
    values.iter().map(|value| text(value).parse().expect("a prefix")).collect()
}
