use proptest::prelude::*;

use crate::codec::sample::{Sample, Source};
use crate::{
    CapabilityVersion, ControlDialPlan, DnsConfig, MapResponse, Node, NodeId, PeerChange,
    PingRequest, RuleBroken, SessionRules, UserId, UserProfile,
};

fn node(id: u64) -> Node {
    Node { id: NodeId(id), user: UserId(1), ..Node::default() }
}

fn patch(id: u64) -> PeerChange {
    PeerChange { node_id: NodeId(id), online: Some(true), ..PeerChange::default() }
}

fn profiles() -> Vec<UserProfile> {
    vec![UserProfile { id: UserId(1), ..UserProfile::default() }]
}

/// A session in which the client knows peers 2 and 3, and user 1.
fn running() -> SessionRules {
    let mut rules = SessionRules::new();
    let first = MapResponse {
        node: Some(Box::new(node(1))),
        peers: vec![node(2), node(3)],
        user_profiles: profiles(),
        dns_config: Some(DnsConfig::default()),
        ..MapResponse::default()
    };
    rules.apply(&first).unwrap();
    rules
}

/// What the rules say to `message` in a running session, and the peers that the client then knows.
#[track_caller]
fn check(message: &MapResponse, expected: Result<&[u64], RuleBroken>) {
    let mut rules = running();
    let result = rules.apply(message);
    let peers: Vec<u64> = rules.peers().iter().map(|id| id.0).collect();
    match expected {
        Ok(known) => assert_eq!((result, peers.as_slice()), (Ok(()), known)),
        Err(broken) => assert_eq!((result, rules), (Err(broken), running())),
    }
}

#[test]
fn the_first_message_has_the_node() {
    let mut rules = SessionRules::new();
    let without = MapResponse { domain: "a".to_owned(), ..MapResponse::default() };
    assert_eq!(rules.apply(&MapResponse::keep_alive()), Ok(()));
    assert_eq!(rules.apply(&without), Err(RuleBroken::FirstWithoutNode));
}

#[test]
fn changes_of_known_peers_follow_each_other() {
    let message = MapResponse {
        peers_removed: vec![NodeId(2)],
        peers_changed: vec![node(4)],
        peers_changed_patch: vec![patch(3)],
        ..MapResponse::default()
    };
    check(&message, Ok(&[3, 4]));
}

#[test]
fn a_full_list_of_peers_replaces_all() {
    let message = MapResponse { peers: vec![node(3), node(9)], ..MapResponse::default() };
    check(&message, Ok(&[3, 9]));
}

#[test]
fn unknown_nodes_are_not_changed() {
    let none = MapResponse::default;
    for message in [
        MapResponse { peers_removed: vec![NodeId(7)], ..none() },
        MapResponse { peers_changed_patch: vec![patch(7)], ..none() },
        MapResponse { peer_seen_change: [(NodeId(7), true)].into(), ..none() },
        MapResponse { online_change: [(NodeId(7), true)].into(), ..none() },
    ] {
        check(&message, Err(RuleBroken::UnknownNode(NodeId(7))));
    }
}

#[test]
fn a_node_is_named_once_in_a_message() {
    let none = MapResponse::default;
    for message in [
        MapResponse { peers_removed: vec![NodeId(2), NodeId(2)], ..none() },
        MapResponse { peers_changed: vec![node(2)], peers_removed: vec![NodeId(2)], ..none() },
        MapResponse { peers_changed: vec![node(2)], peers_changed_patch: vec![patch(2)], ..none() },
        MapResponse {
            online_change: [(NodeId(2), true)].into(),
            peer_seen_change: [(NodeId(2), true)].into(),
            ..none()
        },
        MapResponse { peers: vec![node(2), node(2)], ..none() },
    ] {
        check(&message, Err(RuleBroken::NodeTwice(NodeId(2))));
    }
}

#[test]
fn changes_do_not_mix_with_the_full_list() {
    let message = MapResponse {
        peers: vec![node(2)],
        peers_changed: vec![node(3)],
        ..MapResponse::default()
    };
    check(&message, Err(RuleBroken::DeltasWithPeers));
}

#[test]
fn changes_do_not_mix_with_configuration() {
    let message = MapResponse {
        peers_changed: vec![node(3)],
        dns_config: Some(DnsConfig::default()),
        ..MapResponse::default()
    };
    check(&message, Err(RuleBroken::DeltasWithConfig));
    let config = MapResponse { dns_config: Some(DnsConfig::default()), ..MapResponse::default() };
    check(&config, Ok(&[2, 3]));
}

fn filters(named: &[(&str, Option<()>)]) -> MapResponse {
    let filter = |(name, rules): &(&str, Option<()>)| ((*name).to_owned(), rules.map(|()| vec![]));
    MapResponse { packet_filters: named.iter().map(filter).collect(), ..MapResponse::default() }
}

#[test]
fn filters_that_are_deleted_are_known() {
    let mut rules = running();
    let unknown = Err(RuleBroken::UnknownFilter);
    assert_eq!(rules.apply(&filters(&[("a", None)])), unknown);
    assert_eq!(rules.apply(&filters(&[("*", None), ("a", Some(())), ("b", Some(()))])), Ok(()));
    assert_eq!(rules.apply(&filters(&[("a", None)])), Ok(()));
    assert_eq!(rules.apply(&filters(&[("a", None)])), unknown);
    assert_eq!(rules.apply(&filters(&[("*", None)])), Ok(()));
    assert_eq!(rules.apply(&filters(&[("b", None)])), unknown);
}

#[test]
fn filters_change_by_themselves_or_all_at_once() {
    let with_config = |message| MapResponse { dns_config: Some(DnsConfig::default()), ..message };
    check(&with_config(filters(&[("a", Some(()))])), Err(RuleBroken::DeltasWithConfig));
    check(&with_config(filters(&[("*", None), ("a", Some(()))])), Ok(&[2, 3]));
}

#[test]
fn patches_are_fast() {
    let slow = PeerChange { cap: CapabilityVersion(142), ..patch(2) };
    let message = MapResponse { peers_changed_patch: vec![slow], ..MapResponse::default() };
    check(&message, Err(RuleBroken::SlowPatch(NodeId(2))));
}

#[test]
fn profiles_come_before_or_with_their_first_use() {
    let of_user = |user| MapResponse {
        peers_changed: vec![Node { user: UserId(user), ..node(4) }],
        ..MapResponse::default()
    };
    check(&of_user(1), Ok(&[2, 3, 4]));
    let missing = RuleBroken::ProfileMissing { node: NodeId(4), user: UserId(5) };
    check(&of_user(5), Err(missing));
    let profile = UserProfile { id: UserId(5), ..UserProfile::default() };
    check(&MapResponse { user_profiles: vec![profile], ..of_user(5) }, Ok(&[2, 3, 4]));
    let shared = Node { sharer: UserId(5), ..node(4) };
    check(&MapResponse { peers_changed: vec![shared], ..MapResponse::default() }, Err(missing));
}

#[test]
fn the_nodes_own_profile_is_needed_too() {
    let own = Node { user: UserId(5), ..node(1) };
    let message = MapResponse { node: Some(Box::new(own)), ..MapResponse::default() };
    check(&message, Err(RuleBroken::ProfileMissing { node: NodeId(1), user: UserId(5) }));
}

#[test]
fn a_keep_alive_carries_only_what_clients_read_there() {
    let read = MapResponse {
        ping_request: Some(PingRequest::default()),
        control_dial_plan: Some(ControlDialPlan::default()),
        ..MapResponse::keep_alive()
    };
    check(&read, Ok(&[2, 3]));
    let dropped = MapResponse { peers_changed: vec![node(4)], ..MapResponse::keep_alive() };
    check(&dropped, Err(RuleBroken::KeepAliveWithState));
}

proptest! {
    #[test]
    fn whatever_comes_a_broken_rule_teaches_nothing(seed: u64) {
        let mut source = Source::new(seed);
        let mut rules = running();
        for _ in 0..4 {
            let before = rules.clone();
            if rules.apply(&MapResponse::sample(&mut source)).is_err() {
                prop_assert_eq!(&rules, &before);
            }
        }
    }
}
