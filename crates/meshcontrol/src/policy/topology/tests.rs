use serde_json::{Value, json};

use super::*;

fn parse(topology: &Value) -> anyhow::Result<Topology> {
    Topology::parse(topology.to_string().as_bytes())
}

fn alice() -> Value {
    json!({ "id": 7, "name": "alice", "login": "alice@example.com", "role": "owner" })
}

#[test]
fn ids_follow_the_order_of_registration_and_come_last_where_it_is_unknown() {
    let node =
        |name: &str, order: Option<u64>| json!({ "name": name, "user": "alice", "order": order });
    let nodes = [node("late", Some(9)), node("unknown", None), node("early", Some(2))];
    let topology = parse(&json!({ "users": [alice()], "nodes": nodes })).unwrap();
    let names: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["early", "late", "unknown"]);
    assert_eq!(topology.node(NodeId(2)).name, "late");
    assert_eq!(topology.nodes[0].facts.id, NodeId(1));
}

#[test]
fn a_node_belongs_to_its_tags_or_to_its_user() {
    let nodes = json!([
        { "name": "a", "user": "alice" },
        { "name": "b", "tags": ["tag:y", "tag:x", "tag:y"] },
    ]);
    let topology = parse(&json!({ "users": [alice()], "nodes": nodes })).unwrap();
    assert_eq!(topology.nodes[0].facts.owner, NodeOwner::User(UserId(7)));
    assert_eq!(topology.nodes[1].facts.tags(), ["tag:x".into(), "tag:y".into()]);
    assert_eq!(topology.role(&topology.nodes[0]), Some(Role::Owner));
    assert_eq!(topology.role(&topology.nodes[1]), None);
}

#[test]
fn a_route_is_active_if_it_is_offered_and_approved() {
    let node = |approved: Value| {
        let routes = ["10.0.0.0/8", "10.9.0.0/16"];
        json!({ "name": "r", "user": "alice", "advertised_routes": routes, "approved_routes": approved })
    };
    let active = |approved: Value| {
        let topology = parse(&json!({ "users": [alice()], "nodes": [node(approved)] })).unwrap();
        let node = &topology.nodes[0];
        (node.facts.active_routes.to_vec(), node.is_auto_approved)
    };
    let route: IpNet = "10.9.0.0/16".parse().unwrap();
    assert_eq!(active(json!(["10.9.0.0/16", "192.168.0.0/24"])), (vec![route], false));
    assert_eq!(active(json!([])), (vec![], false));
    assert_eq!(active(Value::Null), (vec![], true));
}

#[test]
fn a_node_names_its_user_by_name_or_login() {
    for name in ["alice", "alice@example.com"] {
        let nodes =
            json!([{ "name": "a", "user": name, "tags": null, "ipv4": null, "order": null }]);
        let topology = json!({ "domains": null, "users": [alice()], "nodes": nodes });
        assert_eq!(parse(&topology).unwrap().nodes[0].facts.user(), Some(UserId(7)));
    }
}

#[test]
fn the_first_router_is_the_primary_one_whoever_approved_its_route() {
    let router = |name: &str, order: u64, approved: Value| {
        let routes = ["10.0.0.0/8"];
        json!({ "name": name, "tags": ["tag:r"], "order": order, "advertised_routes": routes, "approved_routes": approved })
    };
    let nodes = [router("auto", 1, Value::Null), router("told", 2, json!(["10.0.0.0/8"]))];
    let policy =
        r#"{"tagOwners": {"tag:r": []}, "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:r"]}}}"#;
    let policy = Arc::new(Policy::parse(policy, None).unwrap());
    let compiled = parse(&json!({ "nodes": nodes })).unwrap().compile(policy);
    assert_eq!(compiled.primary_routes(NodeId(1)), ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    assert_eq!(compiled.primary_routes(NodeId(2)), []);
}

#[test]
fn a_role_that_policy_does_not_know_is_a_members() {
    let mut auditor = alice();
    auditor["role"] = json!("auditor");
    let topology = parse(&json!({ "users": [auditor], "nodes": [] })).unwrap();
    assert_eq!(topology.users[0].role, Role::Member);
}

#[test]
fn what_makes_no_tailnet_is_refused() {
    for (nodes, why) in [
        (json!([{ "name": "a" }]), "the node a has neither a user nor tags"),
        (json!([{ "name": "a", "user": "bob" }]), "the node a belongs to bob, who is no user"),
        (
            json!([{ "name": "a", "user": "alice" }, { "name": "a", "user": "alice" }]),
            "two nodes are named a",
        ),
    ] {
        let refused = parse(&json!({ "users": [alice()], "nodes": nodes })).unwrap_err();
        assert_eq!(refused.to_string(), why);
    }
    assert!(
        parse(&json!({ "nodes": [{ "name": "a", "tags": ["tag:a"], "ipv4": "::1" }] })).is_err()
    );
    assert!(parse(&json!([])).is_err());
}
