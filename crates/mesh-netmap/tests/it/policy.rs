//! What viewers are told when policy says otherwise, or says otherwise of nodes that changed.

use ipnet::IpNet;
use mesh_model::{Hostinfo, NodeId, UserId};
use mesh_netmap::{full, peer, self_node};
use mesh_state::Command;
use mesh_wire::{MapResponse, Node, SshPolicy};

use crate::house::{BOBS, House, TAGGED, context_with, policy};
use crate::viewer::Viewer;

/// Tags that policies here may name.
const TAG_OWNERS: &str = r#""tagOwners": {"tag:web": ["alice@"], "tag:db": ["alice@"]}"#;

/// A policy of these sections.
fn sections(sections: &str) -> String {
    format!("{{{TAG_OWNERS}, {sections}}}")
}

/// A policy in which sources reach all of a destination, and others nothing.
fn acls(rules: &[(&str, &str)]) -> String {
    let rule = |(src, dst): &(&str, &str)| {
        format!(r#"{{"action": "accept", "src": ["{src}"], "dst": ["{dst}"]}}"#)
    };
    let rules: Vec<String> = rules.iter().map(rule).collect();
    sections(&format!(r#""acls": [{}]"#, rules.join(", ")))
}

/// A tailnet of alice's node 1, bob's node 2 and tagged node 3 under a policy.
fn house(policy: &str) -> House {
    let mut house = House::new();
    house.set_policy(policy);
    house.join(1);
    house.join_with(2, BOBS);
    house.join_with(3, TAGGED);
    house
}

/// The viewers of some nodes.
fn viewers<const N: usize>(house: &House, nodes: [u32; N]) -> [Viewer; N] {
    nodes.map(|node| Viewer::open(house, NodeId(node)))
}

fn wake<const N: usize>(house: &House, viewers: &mut [Viewer; N]) -> [Vec<MapResponse>; N] {
    viewers.each_mut().map(|viewer| viewer.wake(house))
}

/// The one message that a viewer is told.
#[track_caller]
fn one(mut told: Vec<MapResponse>) -> MapResponse {
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

/// A message without its packet filters, and their names; those that are deleted with a minus.
fn without_filters(message: MapResponse) -> (MapResponse, Vec<bool>) {
    let filters = message.packet_filters.values().map(Option::is_some).collect();
    (MapResponse { packet_filters: [].into(), ..message }, filters)
}

/// The one message that a viewer is told, without its packet filters, and those.
#[track_caller]
fn apart(told: Vec<MapResponse>) -> (MapResponse, Vec<bool>) {
    without_filters(one(told))
}

fn wire_id(node: u32) -> mesh_wire::NodeId {
    mesh_wire::NodeId(node.into())
}

fn peer_of(house: &House, viewer: u32, node: u32) -> Node {
    let node = house.node(NodeId(node));
    peer(house.newest(), NodeId(viewer), &node, &context_with([1, 2]))
}

fn own(house: &House, node: u32) -> MapResponse {
    let node = self_node(house.newest(), &house.node(NodeId(node)), &context_with([1, 2]));
    MapResponse { node: Some(Box::new(node)), ..MapResponse::default() }
}

fn ids(peers: &[Node]) -> Vec<u64> {
    peers.iter().map(|peer| peer.id.0).collect()
}

fn prefixes(routes: &[&str]) -> Vec<IpNet> {
    routes.iter().map(|route| route.parse().expect("a prefix")).collect()
}

/// Has a node offer routes.
fn offer(house: &mut House, node: u32, routes: &[&str]) {
    let routable_ips = prefixes(routes);
    let hostinfo = Hostinfo { routable_ips, ..house.node(NodeId(node)).hostinfo.clone() };
    house.must(house.update(NodeId(node), |update| update.hostinfo = Some(hostinfo)));
}

fn approve(house: &mut House, node: u32, routes: &[&str]) {
    house.must(Command::ApproveRoutes { node: NodeId(node), routes: prefixes(routes) });
}

/// Has a node offer routes, and approves them.
fn carry(house: &mut House, node: u32, routes: &[&str]) {
    offer(house, node, routes);
    approve(house, node, routes);
}

#[test]
fn a_peer_that_may_not_be_seen_any_more_is_removed_in_place() {
    let mut house = house(&acls(&[("*", "*:*")]));
    let mut viewers = viewers(&house, [1]);
    house.set_policy(&acls(&[("alice@", "tag:web:*")]));
    let [told] = wake(&house, &mut viewers);
    let (message, filters) = without_filters(one(told));
    let peers_removed = vec![wire_id(2)];
    assert_eq!(message, MapResponse { peers_removed, ..MapResponse::default() });
    assert_eq!(filters, [false], "nothing reaches it any more");
    assert_eq!(viewers[0].rebuilds, 1, "the first message alone is dear");
}

#[test]
fn a_peer_that_may_be_seen_comes_in_place_with_its_user_and_its_filter() {
    let mut house = house(&acls(&[("alice@", "tag:web:*")]));
    let mut viewers = viewers(&house, [1]);
    house.set_policy(&acls(&[("alice@", "tag:web:*"), ("bob@", "alice@:22")]));
    let [told] = wake(&house, &mut viewers);
    let (message, filters) = without_filters(one(told));
    assert_eq!(message.peers_changed, [peer_of(&house, 1, 2)]);
    let users: Vec<_> = message.user_profiles.iter().map(|user| &*user.login_name).collect();
    assert_eq!((users, filters), (vec!["bob"], vec![true]));
    assert_eq!(viewers[0].rebuilds, 1, "the first message alone is dear");
}

#[test]
fn a_group_edit_is_told_to_those_whom_it_concerns() {
    let group = |members: &str| {
        sections(&format!(
            r#""groups": {{"group:eng": [{members}]}},
            "acls": [{{"action": "accept", "src": ["group:eng"], "dst": ["tag:web:80"]}}]"#,
        ))
    };
    let mut house = house(&group(r#""alice@""#));
    let database = house.join_with(4, TAGGED);
    house.must(Command::TagNode { node: database, tags: vec!["tag:db".parse().expect("a tag")] });
    let mut viewers = viewers(&house, [1, 2, 3, 4]);
    house.set_policy(&group(r#""alice@", "bob@""#));
    let [alice, bob, web, database] = wake(&house, &mut viewers);
    assert_eq!((alice, database), (vec![], vec![]));
    assert_eq!(ids(&one(bob).peers_changed), [3]);
    let (web, filters) = apart(web);
    assert_eq!((ids(&web.peers_changed), filters), (vec![2], vec![true]));
    house.set_policy(&group(r#""alice@""#));
    let [alice, bob, web, database] = wake(&house, &mut viewers);
    assert_eq!((alice, database), (vec![], vec![]));
    let (web, filters) = apart(web);
    assert_eq!(one(bob).peers_removed, [wire_id(3)]);
    assert_eq!((web.peers_removed, filters), (vec![wire_id(2)], vec![true]));
    assert!(viewers.iter().all(|viewer| viewer.rebuilds == 1));
}

#[test]
fn a_node_that_others_may_not_see_is_not_told_to_them() {
    let mut house = house(&acls(&[("alice@", "alice@:*")]));
    let mut viewers = viewers(&house, [1, 2, 3]);
    house.join(4);
    let [alice, bob, web] = wake(&house, &mut viewers);
    assert_eq!((ids(&apart(alice).0.peers_changed), bob, web), (vec![4], vec![], vec![]));
}

#[test]
fn a_tagged_node_is_seen_by_others_than_before() {
    let mut house = house(&acls(&[("alice@", "tag:web:*"), ("bob@", "tag:db:*")]));
    let mut viewers = viewers(&house, [1, 2]);
    house.must(Command::TagNode { node: NodeId(3), tags: vec!["tag:db".parse().expect("a tag")] });
    let [alice, bob] = wake(&house, &mut viewers).map(one);
    assert_eq!((alice.peers_removed, ids(&bob.peers_changed)), (vec![wire_id(3)], vec![3]));
}

#[test]
fn an_approved_route_reaches_its_router_and_those_who_may_use_it() {
    let mut house = house(&acls(&[("alice@", "10.0.0.0/8:*"), ("bob@", "tag:web:22")]));
    offer(&mut house, 3, &["10.1.0.0/16"]);
    let mut viewers = viewers(&house, [1, 2, 3]);
    approve(&mut house, 3, &["10.1.0.0/16"]);
    let [alice, bob, router] = wake(&house, &mut viewers);
    assert_eq!(bob, [], "it sees the router, but not the route");
    let peer = one(alice).peers_changed.remove(0);
    assert_eq!((peer.id, &peer.primary_routes), (wire_id(3), &prefixes(&["10.1.0.0/16"])));
    assert_eq!(peer.allowed_ips.expect("routes")[2..], prefixes(&["10.1.0.0/16"]));
    let [first, last] = <[_; 2]>::try_from(router).expect("two messages");
    let (first, filters) = without_filters(first);
    assert_eq!((ids(&first.peers_changed), filters), (vec![1], vec![true]), "alice is let in");
    assert_eq!(last, own(&house, 3));
    assert_eq!(last.node.expect("its own node").primary_routes, prefixes(&["10.1.0.0/16"]));
    assert_eq!(viewers[0].rebuilds, 1);
}

#[test]
fn a_route_is_known_to_its_router_whoever_may_use_it() {
    let mut house = house(&acls(&[("bob@", "tag:web:22")]));
    let mut viewers = viewers(&house, [2, 3]);
    carry(&mut house, 3, &["10.1.0.0/16"]);
    let [bob, router] = wake(&house, &mut viewers);
    assert_eq!(bob, [peer_changed(&house, 2, 3)], "its hostinfo alone");
    assert_eq!(router, [own(&house, 3)]);
}

/// A message with one peer whole, as a viewer sees it now.
fn peer_changed(house: &House, viewer: u32, node: u32) -> MapResponse {
    MapResponse { peers_changed: vec![peer_of(house, viewer, node)], ..MapResponse::default() }
}

#[test]
fn a_route_moves_to_the_next_router_in_one_message() {
    let mut house = house(&acls(&[("*", "*:*")]));
    house.join(4);
    for router in [3, 4] {
        carry(&mut house, router, &["10.0.0.0/8"]);
    }
    let mut viewers = viewers(&house, [1, 4]);
    house.disconnect(NodeId(3));
    let [alice, second] = wake(&house, &mut viewers);
    let message = one(alice);
    let routes: Vec<_> = message.peers_changed.iter().map(|peer| &*peer.primary_routes).collect();
    assert_eq!(ids(&message.peers_changed), [3, 4]);
    assert_eq!(routes, [&[][..], &prefixes(&["10.0.0.0/8"])]);
    assert_eq!(second.last(), Some(&own(&house, 4)), "it hears that it is the primary");
    house.connect(NodeId(3));
    let [alice, second] = wake(&house, &mut viewers);
    assert!(one(alice).peers_changed.is_empty(), "and not back");
    assert_eq!(second.len(), 1);
}

#[test]
fn an_exit_node_is_offered_to_those_who_may_use_it() {
    let mut house = house(&acls(&[("alice@", "autogroup:internet:*"), ("bob@", "tag:web:22")]));
    offer(&mut house, 3, &["0.0.0.0/0", "::/0"]);
    let mut viewers = viewers(&house, [1, 2]);
    approve(&mut house, 3, &["0.0.0.0/0"]);
    let [alice, bob] = wake(&house, &mut viewers);
    assert_eq!(bob, []);
    let exit = one(alice).peers_changed.remove(0);
    assert_eq!(exit.allowed_ips.expect("routes")[2..], prefixes(&["0.0.0.0/0", "::/0"]));
    assert!(exit.primary_routes.is_empty(), "an exit is no subnet");
    assert_eq!(exit.cap_map, [("suggest-exit-node".to_owned(), None)].into());
}

#[test]
fn a_filter_changes_by_itself_and_rule_by_rule() {
    let ports = |rules: &[(&str, &str)]| acls(rules);
    let mut house = house(&ports(&[("alice@", "tag:web:80"), ("bob@", "tag:web:80")]));
    let mut viewers = viewers(&house, [1, 3]);
    let mut check = |rules: &[(&str, &str)], expected: &[bool]| {
        house.set_policy(&ports(rules));
        let [alice, web] = wake(&house, &mut viewers);
        let (rest, filters) = without_filters(one(web));
        assert_eq!((alice, rest), (vec![], MapResponse::default()));
        assert_eq!(filters, expected);
        assert_eq!(viewers[1].rebuilds, 1, "the first message alone is dear");
    };
    check(&[("alice@", "tag:web:80"), ("bob@", "tag:web:443")], &[true]);
    check(
        &[("alice@", "tag:web:80"), ("bob@", "tag:web:443"), ("autogroup:member", "tag:web:7")],
        &[true],
    );
    check(&[("alice@", "tag:web:80"), ("bob@", "tag:web:443")], &[false]);
}

#[test]
fn a_filter_follows_the_nodes_of_its_sources() {
    let mut house = house(&acls(&[("bob@", "tag:web:80"), ("alice@", "tag:web:80")]));
    let mut viewers = viewers(&house, [1, 3]);
    house.join_with(4, BOBS);
    let [alice, web] = wake(&house, &mut viewers);
    let (web, filters) = apart(web);
    assert_eq!((alice, ids(&web.peers_changed)), (vec![], vec![4]));
    assert_eq!(filters, [true], "bob's rule, and not alice's");
}

#[test]
fn capabilities_of_applications_are_told_as_written() {
    let mut house = house(&acls(&[("alice@", "tag:web:80")]));
    let mut viewers = viewers(&house, [3]);
    house.set_policy(&sections(
        r#""grants": [
            {"src": ["alice@"], "dst": ["tag:web"], "ip": ["80"]},
            {"src": ["alice@"], "dst": ["tag:web"], "app": {"x.example/cap": [{"b": 1e3, "a": 2}]}},
        ]"#,
    ));
    let [told] = wake(&house, &mut viewers);
    let json = serde_json::to_string(&one(told)).expect("it serializes");
    assert!(json.contains(r#""CapMap":{"x.example/cap":[{"b":1e3,"a":2}]}"#), "{json}");
}

fn ssh(rules: &str) -> String {
    sections(&format!(
        r#""acls": [{{"action": "accept", "src": ["*"], "dst": ["*:*"]}}], "ssh": [{rules}]"#
    ))
}

const ALICE_MAY_LOG_IN: &str = r#"{"action": "accept", "src": ["alice@"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]}"#;

#[test]
fn ssh_rules_are_told_to_the_nodes_that_they_open() {
    let mut house = house(&ssh(ALICE_MAY_LOG_IN));
    let message = |node| full(house.newest(), NodeId(node), &context_with([1]), house.time());
    let rules = |node| message(node).expect("it is there").ssh_policy.expect("there is one").rules;
    let [rule] = <[_; 1]>::try_from(rules(3)).expect("a rule");
    let principals: Vec<_> = rule.principals.iter().map(|principal| &*principal.node_ip).collect();
    assert_eq!(principals, ["100.64.0.1", "fd7a:115c:a1e0::1"]);
    let action = rule.action.expect("it says what happens");
    assert!(action.accept && action.allow_agent_forwarding && action.hold_and_delegate.is_empty());
    assert_eq!(rules(1), [], "nobody logs in there");
    let mut viewers = viewers(&house, [1, 3]);
    house.join(4);
    let [alice, web] = wake(&house, &mut viewers);
    assert_eq!((alice.len(), web.len()), (1, 2));
    let policy = web[1].ssh_policy.as_ref().expect("ssh rules");
    assert_eq!(policy.rules[0].principals.len(), 4);
    let rest = MapResponse { ssh_policy: None, ..web[1].clone() };
    assert_eq!(rest, MapResponse::default(), "by itself, for it costs a rebuild");
}

#[test]
fn a_check_is_left_to_the_server() {
    let check = ALICE_MAY_LOG_IN.replace("accept", "check");
    let house = house(&ssh(&check));
    let message = full(house.newest(), NodeId(3), &context_with([1]), house.time());
    let policy = message.expect("it is there").ssh_policy.expect("ssh rules");
    let action = policy.rules[0].action.clone().expect("it says what happens");
    assert!(!action.accept && action.hold_and_delegate.ends_with("?local_user=$LOCAL_USER"));
}

#[test]
fn a_recorder_that_comes_is_told_with_the_rules() {
    let recorded = ALICE_MAY_LOG_IN.replace('}', r#", "recorder": ["tag:db"]}"#);
    let mut house = house(&ssh(&recorded));
    let taper = house.join_with(4, TAGGED);
    let mut viewers = viewers(&house, [3]);
    house.must(Command::TagNode { node: taper, tags: vec!["tag:db".parse().expect("a tag")] });
    let [told] = wake(&house, &mut viewers);
    let policy = told.last().and_then(|last| last.ssh_policy.as_ref()).expect("ssh rules");
    let action = policy.rules[0].action.as_ref().expect("it says what happens");
    assert_eq!(action.recorders[0], "100.64.0.4:80".parse().expect("an endpoint"));
}

#[test]
fn ssh_rules_that_go_are_taken_back() {
    for section in [&*ssh(""), &*acls(&[("*", "*:*")])] {
        let mut house = house(&ssh(ALICE_MAY_LOG_IN));
        let mut viewers = viewers(&house, [1, 3]);
        house.set_policy(section);
        let [alice, web] = wake(&house, &mut viewers);
        let ssh_policy = Some(SshPolicy::default());
        assert_eq!(
            (alice, one(web)),
            (vec![], MapResponse { ssh_policy, ..MapResponse::default() })
        );
    }
}

#[test]
fn ssh_rules_that_went_are_taken_back_with_everything() {
    let mut house = house(&ssh(ALICE_MAY_LOG_IN));
    let mut viewers = viewers(&house, [3]);
    house.set_policy(&acls(&[("*", "*:*")]));
    let told = viewers[0].wake_in(&house, context_with([7]));
    assert_eq!(one(told).ssh_policy, Some(SshPolicy::default()));
    let nothing = full(house.newest(), NodeId(3), &context_with([1]), house.time());
    assert_eq!(nothing.expect("it is there").ssh_policy, None, "to a client that knows of none");
}

#[test]
fn an_attribute_is_told_to_the_node_that_has_it() {
    let mut house = house(&acls(&[("*", "*:*")]));
    let mut viewers = viewers(&house, [1, 2, 3]);
    house.set_policy(&sections(
        r#""acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "nodeAttrs": [{"target": ["tag:web"], "attr": ["funnel", "x.example/y"]}]"#,
    ));
    let [alice, bob, web] = wake(&house, &mut viewers);
    assert_eq!((alice, bob, &*web), (vec![], vec![], &[own(&house, 3)][..]));
    let node = web[0].node.as_ref().expect("its own node");
    for name in ["x.example/y", "funnel", "https://tailscale.com/cap/ssh", "ssh-env-vars"] {
        assert_eq!(node.cap_map.get(name), Some(&None), "{name}");
    }
}

#[test]
fn addresses_that_a_node_does_without_are_told_to_nobody() {
    let mut house = house(&acls(&[("*", "*:*")]));
    let mut viewers = viewers(&house, [1, 3]);
    house.set_policy(&sections(
        r#""acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4"]}]"#,
    ));
    let [alice, web] = wake(&house, &mut viewers);
    let of = |node: u32| prefixes(&[&format!("fd7a:115c:a1e0::{node}/128")]);
    assert_eq!(one(alice).peers_changed.remove(0).addresses, of(3));
    let peers: Vec<_> = web[0].peers_changed.iter().map(|peer| peer.addresses.clone()).collect();
    assert_eq!(peers, [of(1), of(2)]);
    assert_eq!(web[1].node.as_ref().expect("its own node").addresses, of(3));
}

#[test]
fn nodes_of_one_user_see_each_other_alone() {
    let mut house = house(&acls(&[("autogroup:member", "autogroup:self:*")]));
    let mut viewers = viewers(&house, [1, 2]);
    house.join(4);
    let [alice, bob] = wake(&house, &mut viewers);
    let (alice, filters) = apart(alice);
    assert_eq!((ids(&alice.peers_changed), filters, bob), (vec![4], vec![true], vec![]));
    house.must(Command::DeleteNode { node: NodeId(4) });
    let [alice, bob] = wake(&house, &mut viewers);
    let (alice, filters) = apart(alice);
    assert_eq!((alice.peers_removed, filters, bob), (vec![wire_id(4)], vec![true], vec![]));
}

#[test]
fn a_renamed_user_is_told_to_those_alone_who_see_it() {
    let mut house = house(&acls(&[("alice@", "tag:web:*")]));
    let mut viewers = viewers(&house, [1, 2, 3]);
    house.must(Command::RenameUser { user: UserId(2), name: "carol".to_owned() });
    let [alice, bob, web] = wake(&house, &mut viewers);
    assert_eq!((alice, web), (vec![], vec![]));
    assert_eq!(one(bob).user_profiles[0].login_name, "carol");
}

#[test]
fn a_user_that_policy_knows_by_its_name_is_another_after_a_rename() {
    let mut house = house(&acls(&[("carol@", "tag:web:*")]));
    let mut viewers = viewers(&house, [2, 3]);
    house.must(Command::RenameUser { user: UserId(2), name: "carol".to_owned() });
    let [mut bob, web] = wake(&house, &mut viewers);
    assert_eq!(bob.pop().expect("a message").user_profiles[0].login_name, "carol");
    assert_eq!(
        (ids(&one(bob).peers_changed), ids(&apart(web).0.peers_changed)),
        (vec![3], vec![2])
    );
}

#[test]
fn a_policy_that_says_the_same_is_told_to_nobody() {
    let rules = acls(&[("alice@", "tag:web:80"), ("*", "10.0.0.0/8:*")]);
    let mut house = house(&rules);
    carry(&mut house, 3, &["10.0.0.0/8"]);
    let mut viewers = viewers(&house, [1, 2, 3]);
    house.set_policy(&format!("// The same.\n{rules}"));
    assert_eq!(wake(&house, &mut viewers), [const { vec![] }; 3]);
}

#[test]
fn policies_in_one_batch_are_told_as_one() {
    let mut house = house(&acls(&[("alice@", "tag:web:80")]));
    let mut viewers = viewers(&house, [1, 2, 3]);
    let there_and_back = [acls(&[("*", "*:*")]), acls(&[("alice@", "tag:web:80")])];
    house.batch(&there_and_back.map(|text| policy(&text)));
    assert_eq!(wake(&house, &mut viewers), [const { vec![] }; 3]);
}
