//! Policies put in force, and what they decide.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_model::{Hostinfo, Node, NodeId, Owner, Tag, TailnetId, UserId};
use mesh_policy::NodeFacts;
use mesh_state::{
    Command, NewPolicy, NodeUpdate, Outcome, POLICY_VERSIONS_MAX, Refusal, Registration, Settings,
    State, policy_digest,
};
use mesh_testkit::{at, context, new_user, node_key, registration};

use crate::{House, parse, set_policy};

const NOBODY: &str = r#"{"acls": []}"#;
const ROUTERS: &str = r#"{
    "tagOwners": {"tag:router": ["alice@"], "tag:web": ["tag:router"], "tag:db": []},
    "autoApprovers": {"routes": {"10.0.0.0/8": ["alice@"]}, "exitNode": ["tag:router"]},
}"#;
const FAILING: &str =
    r#"{"acls": [], "tests": [{"src": "100.64.0.1", "accept": ["100.64.0.2:80"]}]}"#;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

fn offering(routes: &[&str]) -> Hostinfo {
    let routable_ips = routes.iter().map(|route| net(route)).collect();
    Hostinfo { hostname: "machine".to_owned(), routable_ips, ..Hostinfo::default() }
}

fn update(node: &Node) -> NodeUpdate {
    NodeUpdate {
        node: node.id,
        node_key: node.node_key,
        disco_key: node.disco_key,
        hostinfo: None,
        endpoints: vec![([192, 0, 2, 1], 1).into()],
        home_derp: Some(3),
        capability_version: 130,
    }
}

fn offer(house: &mut House, node: NodeId, routes: &[&str]) {
    let update = NodeUpdate { hostinfo: Some(offering(routes)), ..update(&house.get(node)) };
    house.must(Command::UpdateNode(Box::new(update)));
}

fn sees(house: &House, viewer: NodeId, peer: NodeId) -> bool {
    house.state.snapshot(house.now).policy.sees(viewer, peer)
}

fn primaries(house: &House, node: NodeId) -> Vec<IpNet> {
    house.state.snapshot(house.now).policy.primary_routes(node)
}

fn version_ids(house: &House) -> Vec<u64> {
    house.rows.load().tailnet.policy_versions().map(|version| version.id.0).collect()
}

fn restart(house: &mut House, policy: &str) {
    let loaded = house.rows.load();
    house.state = State::new(TailnetId(1), loaded, parse(policy), Settings::default(), house.now);
}

#[test]
fn a_policy_is_felt_at_once_and_after_a_restart() {
    let mut house = House::new();
    let (one, other) = (house.connected(1).id, house.connected(2).id);
    assert!(sees(&house, one, other));
    house.must_set_policy(NOBODY);
    assert!([one, other].iter().all(|node| house.changes.policy.moved.contains(node.0)));
    assert!(!sees(&house, one, other));

    let loaded = house.rows.load();
    let stored = loaded.tailnet.policy_version().expect("it was recorded");
    assert_eq!((stored.id.0, &*stored.text, &*stored.created_by), (1, NOBODY, "cli"));
    restart(&mut house, &stored.text);
    assert!(!sees(&house, one, other));
}

#[test]
fn setting_a_policy_ends_in_the_version_in_force() {
    let mut house = House::new();
    let Ok(Outcome::Policy(version)) = house.set_policy("{}") else { panic!("a good policy") };
    assert_eq!((version.id.0, version.digest.len()), (1, 64));
    assert_eq!(version.digest, policy_digest("{}"));
}

#[test]
fn the_change_names_the_version_for_replicas() {
    let house = House::new();
    let mut draft = house.state.draft();
    draft.apply(&set_policy(NOBODY), &context(at(0))).expect("a good policy");
    let batch = draft.batch(at(0)).expect("something to write");
    assert!(batch.change.contains(r#""policy_version":1"#), "{}", batch.change);
}

#[test]
fn a_policy_is_replaced_only_by_who_has_read_it() {
    let mut house = House::new();
    let replace = |text: &str, read: &str| {
        Command::SetPolicy(Box::new(NewPolicy {
            text: text.to_owned(),
            policy: parse(text),
            created_by: "cli".to_owned(),
            replaces: Some(policy_digest(read)),
        }))
    };
    assert_eq!(house.apply(replace(NOBODY, "{}")), Err(Refusal::PolicyReplaced));
    house.must(replace(NOBODY, ""));
    assert_eq!(house.apply(replace("{}", "")), Err(Refusal::PolicyReplaced));
    house.must(replace("{}", NOBODY));
}

#[test]
fn the_same_text_makes_no_version() {
    let mut house = House::new();
    for text in [NOBODY, NOBODY, "{}", "{}", NOBODY] {
        house.must_set_policy(text);
    }
    assert_eq!(version_ids(&house), [1, 2, 3]);
}

#[test]
fn old_versions_make_room() {
    let mut house = House::new();
    let last = POLICY_VERSIONS_MAX as u64 + 5;
    for number in 1..=last {
        house.must_set_policy(&format!("{{}} // {number}"));
    }
    assert_eq!(version_ids(&house), (6..=last).collect::<Vec<_>>());
    for number in 1..=6 {
        house.must_set_policy(&format!("{{}} // {number}{}", "x".repeat(3 << 20)));
    }
    let expected: Vec<_> = (last + 2..=last + 6).collect();
    assert_eq!(version_ids(&house), expected, "16 MiB are enough");
}

#[test]
fn a_policy_that_fails_its_tests_changes_nothing() {
    let mut house = House::new();
    let (one, other) = (house.connected(1).id, house.connected(2).id);
    let Err(Refusal::PolicyTestsFailed(report)) = house.set_policy(FAILING) else {
        panic!("its test fails");
    };
    assert!(report.contains("test(s) failed") && report.contains("tests[0]"), "{report}");
    assert!(sees(&house, one, other));
    assert!(version_ids(&house).is_empty());
}

#[test]
fn a_policy_in_force_from_the_start_is_recorded_whatever_its_tests_say() {
    let mut house = House::new();
    restart(&mut house, FAILING);
    house.must_set_policy(FAILING);
    assert_eq!(version_ids(&house), [1]);
}

#[test]
fn users_reach_the_policy() {
    let mut house = House::new();
    house.must_set_policy(
        r#"{"groups": {"group:dev": ["bob@"]},
            "acls": [{"action": "accept", "src": ["group:dev"], "dst": ["group:dev:*"]}]}"#,
    );
    let (one, other) = (house.connected(1).id, house.connected(2).id);
    assert!(!sees(&house, one, other));
    house.must(Command::RenameUser { user: UserId(1), name: "bob".to_owned() });
    assert!(sees(&house, one, other));
    assert!(house.changes.policy.moved.contains(one.0));
    house.must(Command::RenameUser { user: UserId(1), name: "alice".to_owned() });
    assert!(!sees(&house, one, other));
}

#[test]
fn nodes_reach_the_policy_when_peers_are_told_of_them() {
    let mut house = House::new();
    let key = house.key(|_| {});
    let node = house.must_register(Registration { preauth_key: Some(key), ..registration(1, 1) });
    let known = |house: &House| house.state.snapshot(at(0)).policy.node(node.id).cloned();
    assert_eq!(known(&house), None);
    house.connect(&node);
    assert_eq!(known(&house), Some(NodeFacts::from(&*house.get(node.id))));
    house.must(Command::DeleteNode { node: node.id });
    assert_eq!(known(&house), None);
    assert!(house.changes.policy.moved.contains(node.id.0));
}

#[test]
fn what_policy_does_not_ask_about_is_no_event_for_it() {
    let mut house = House::new();
    let node = house.connected(1);
    house.must(Command::UpdateNode(Box::new(update(&node))));
    assert!(house.changes.nodes.contains(node.id.0));
    assert!(house.changes.policy.is_empty(), "{:?}", house.changes.policy);
}

#[test]
fn routes_are_approved_at_registration() {
    let mut house = House::new();
    house.must_set_policy(ROUTERS);
    let preauth_key = Some(house.key(|_| {}));
    let hostinfo = offering(&["10.1.0.0/16", "192.168.0.0/16", "0.0.0.0/0"]);
    let request = Registration { preauth_key, hostinfo, ..registration(1, 1) };
    assert_eq!(house.must_register(request).approved_routes, [net("10.1.0.0/16")]);

    let preauth_key = Some(house.key(|key| key.tags = vec![tag("tag:router")]));
    let hostinfo = offering(&["10.1.0.0/16", "0.0.0.0/0"]);
    let request = Registration { preauth_key, hostinfo, ..registration(2, 2) };
    assert_eq!(house.must_register(request).approved_routes, [net("0.0.0.0/0"), net("::/0")]);
}

#[test]
fn routes_are_approved_when_a_node_offers_others_and_stay_approved() {
    let mut house = House::new();
    house.must_set_policy(ROUTERS);
    let node = house.connected(1).id;
    offer(&mut house, node, &["10.1.0.0/16"]);
    assert_eq!(house.get(node).approved_routes, [net("10.1.0.0/16")]);
    assert!(house.changes.nodes.contains(node.0));
    offer(&mut house, node, &[]);
    house.must_set_policy(NOBODY);
    offer(&mut house, node, &["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(house.get(node).approved_routes, [net("10.1.0.0/16")]);
}

#[test]
fn a_client_that_starts_again_has_its_routes_approved() {
    let mut house = House::new();
    house.must_set_policy(ROUTERS);
    house.connected(1);
    let again = Registration { hostinfo: offering(&["10.3.0.0/16"]), ..registration(1, 1) };
    assert_eq!(house.must_register(again).approved_routes, [net("10.3.0.0/16")]);
}

#[test]
fn setting_a_policy_approves_for_all_nodes_at_once_also_if_it_is_the_same() {
    let mut house = House::new();
    let nodes = [1, 2, 3].map(|machine| house.connected(machine).id);
    for node in nodes {
        offer(&mut house, node, &["10.1.0.0/16"]);
    }
    let approved = |house: &House| nodes.map(|node| house.get(node).approved_routes.len());
    assert_eq!(approved(&house), [0, 0, 0]);
    house.must_set_policy(ROUTERS);
    assert_eq!(approved(&house), [1, 1, 1]);
    assert_eq!(house.changes.nodes.len(), 3);

    house.must(Command::ApproveRoutes { node: nodes[0], routes: Vec::new() });
    assert_eq!(approved(&house), [0, 1, 1], "an admin withdraws");
    house.must_set_policy(ROUTERS);
    assert_eq!(approved(&house), [1, 1, 1]);
    assert_eq!(version_ids(&house), [1]);
}

#[test]
fn the_second_router_takes_over_and_keeps_a_prefix_and_both_are_named() {
    let mut house = House::new();
    let (first, second) = (house.connected(1).id, house.connected(2).id);
    let prefix = net("10.0.0.0/24");
    for node in [first, second] {
        offer(&mut house, node, &["10.0.0.0/24"]);
        house.must(Command::ApproveRoutes { node, routes: vec![prefix] });
        assert!(house.changes.nodes.contains(node.0), "a router hears of its approval");
    }
    let both = |house: &House| [first, second].map(|node| primaries(house, node).len());
    let named = |house: &House| [first, second].map(|node| house.changes.nodes.contains(node.0));
    assert_eq!(both(&house), [1, 0]);

    let session = house.get(first).session.expect("it is connected");
    house.must(Command::Disconnect { node: first, session });
    assert_eq!((both(&house), named(&house)), ([0, 1], [true, true]));

    let node = house.get(first);
    house.connect(&node);
    assert_eq!(both(&house), [0, 1], "it does not take it back");
    house.must(Command::ApproveRoutes { node: second, routes: Vec::new() });
    assert_eq!((both(&house), named(&house)), ([1, 0], [true, true]));
}

fn request_tags(house: &mut House, machine: u64, tags: &[&str]) -> Result<Arc<Node>, String> {
    let key = house.key(|_| {});
    let mut request = Registration { preauth_key: Some(key), ..registration(machine, machine) };
    request.hostinfo.request_tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    house.register(request).map(House::node).map_err(|refusal| refusal.to_string())
}

#[test]
fn requested_tags_are_given_to_those_who_own_them() {
    let node_expiry = Some(Duration::from_secs(100));
    let mut house = House::with(Settings { node_expiry, ..Settings::default() });
    house.must_set_policy(ROUTERS);
    let node = request_tags(&mut house, 1, &["tag:router"]).expect("alice owns it");
    assert_eq!(node.owner, Owner::Tags(vec![tag("tag:router")]));
    assert_eq!(node.expires_at, None, "a tagged node's key does not expire");
    let refusal = request_tags(&mut house, 2, &["tag:router", "tag:db", "tag:x", "web"]);
    let refusal = refusal.expect_err("most of them are not hers");
    assert!(refusal.contains("requested tags [tag:db, tag:x, web]"), "{refusal}");
    assert!(refusal.contains("alice is not an owner of tag:db"), "{refusal}");
    assert!(refusal.contains("tag:x is not defined in tagOwners"), "{refusal}");
    assert_eq!(house.tailnet().node_count(), 1);
}

#[test]
fn a_node_may_take_tags_that_its_tags_own() {
    let mut house = House::new();
    house.must_set_policy(ROUTERS);
    let node = request_tags(&mut house, 1, &["tag:router"]).expect("alice owns it");
    house.must(Command::CreateUser(new_user("bob")));
    let preauth_key = Some(house.key(|key| key.user = Some(UserId(2))));
    let old_node_key = Some(node_key(1));
    let mut again = Registration { preauth_key, old_node_key, ..registration(1, 11) };
    again.hostinfo.request_tags = vec!["tag:web".to_owned()];
    let again = house.must_register(again);
    assert_eq!((again.id, &again.owner), (node.id, &Owner::Tags(vec![tag("tag:web")])));
}

#[test]
fn admins_give_tags_that_the_policy_defines() {
    let mut house = House::new();
    let node = house.connected(1).id;
    let give = |tags: &[&str]| Command::TagNode {
        node,
        tags: tags.iter().map(|text| tag(text)).collect(),
    };
    house.must(give(&["tag:any"]));
    house.must_set_policy(ROUTERS);
    let refused = Err(Refusal::TagUndefined(tag("tag:any")));
    assert_eq!(house.apply(give(&["tag:db", "tag:any"])), refused);
    house.must(give(&["tag:db"]));
}

#[test]
fn addresses_come_from_the_pool_of_the_policy() {
    let mut house = House::new();
    house.must_set_policy(
        r#"{
            "tagOwners": {"tag:db": []},
            "nodeAttrs": [{"target": ["tag:db"], "ipPool": ["100.81.0.0/31"]}],
        }"#,
    );
    let mut join = |machine: u64, tags: &[&str]| {
        let key = house.key(|key| key.tags = tags.iter().map(|text| tag(text)).collect());
        let request = Registration { preauth_key: Some(key), ..registration(machine, machine) };
        house.register(request).map(|outcome| House::node(outcome).ipv4)
    };
    assert_eq!(join(1, &["tag:db"]), Ok(Some(Ipv4Addr::new(100, 81, 0, 0))));
    assert_eq!(join(2, &[]), Ok(Some(Ipv4Addr::new(100, 64, 0, 1))));
    assert_eq!(join(3, &["tag:db"]), Ok(Some(Ipv4Addr::new(100, 81, 0, 1))));
    assert_eq!(join(4, &["tag:db"]), Err(Refusal::PoolExhausted));
}
