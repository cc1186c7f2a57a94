use std::net::SocketAddr;

use mesh_keys::{DiscoPublic, NodePublic};
use mesh_wire::{
    Base64, CapabilityVersion, DerpHomeParams, DerpRegion, DerpRegionId, DisplayMessageSeverity,
    SessionRules,
};
use proptest::prelude::*;

use super::*;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn endpoints(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::from(([192, 0, 2, 1], port))]
}

fn peer(id: u64) -> Node {
    Node {
        id: NodeId(id),
        name: format!("peer-{id}.example."),
        user: UserId(1),
        key: NodePublic::from_bytes([1; 32]),
        key_expiry: Some(time(9_000)),
        key_signature: Base64(vec![1]),
        disco_key: DiscoPublic::from_bytes([1; 32]),
        addresses: vec!["100.64.0.1/32".parse().expect("a prefix")],
        endpoints: endpoints(1),
        home_derp: DerpRegionId(1),
        cap: CapabilityVersion(130),
        online: Some(false),
        last_seen: Some(time(1_000)),
        ..Node::default()
    }
}

fn profile(id: u64) -> UserProfile {
    UserProfile { id: UserId(id), login_name: format!("user-{id}"), ..UserProfile::default() }
}

/// The first message of a session with the given peers.
fn full(peers: Vec<Node>) -> MapResponse {
    MapResponse {
        node: Some(Box::new(Node { id: NodeId(100), user: UserId(1), ..Node::default() })),
        peers,
        user_profiles: vec![profile(1)],
        domain: "example".to_owned(),
        ..MapResponse::default()
    }
}

fn netmap(messages: impl IntoIterator<Item = MapResponse>) -> Netmap {
    let mut netmap = Netmap::default();
    for message in messages {
        netmap.apply(message, time(5_000));
    }
    netmap
}

fn changed(peers: Vec<Node>) -> MapResponse {
    MapResponse { peers_changed: peers, ..MapResponse::default() }
}

fn patched(patch: PeerChange) -> MapResponse {
    MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() }
}

fn ids(netmap: &Netmap) -> Vec<u64> {
    netmap.peers.keys().map(|id| id.0).collect()
}

#[test]
fn full_list_replaces_and_ignores_deltas_beside_it() {
    let mut message = full(vec![peer(2), peer(3)]);
    message.peers_removed = vec![NodeId(2)];
    message.peers_changed = vec![peer(9)];
    assert_eq!(ids(&netmap([full(vec![peer(1)]), message])), [2, 3]);
}

#[test]
fn empty_list_changes_nothing() {
    assert_eq!(ids(&netmap([full(vec![peer(1)]), full(vec![])])), [1]);
}

#[test]
fn peers_come_change_and_go() {
    let mut message = changed(vec![Node { name: "renamed.".to_owned(), ..peer(2) }, peer(3)]);
    message.peers_removed = vec![NodeId(1), NodeId(77)];
    let netmap = netmap([full(vec![peer(1), peer(2)]), message]);
    assert_eq!(ids(&netmap), [2, 3]);
    assert_eq!(netmap.peers[&NodeId(2)].name, "renamed.");
}

#[test]
fn allowed_ips_left_out_are_the_addresses() {
    let netmap = netmap([full(vec![peer(1)])]);
    let peer = &netmap.peers[&NodeId(1)];
    assert_eq!(peer.allowed_ips.as_ref(), Some(&peer.addresses));
}

#[test]
fn seen_and_online_flip() {
    let message = MapResponse {
        peer_seen_change: [(NodeId(1), true), (NodeId(2), false), (NodeId(77), true)].into(),
        online_change: [(NodeId(1), true), (NodeId(77), true)].into(),
        ..MapResponse::default()
    };
    let netmap = netmap([full(vec![peer(1), peer(2)]), message]);
    let [one, two] = [1, 2].map(|id| &netmap.peers[&NodeId(id)]);
    assert_eq!((one.last_seen, one.online), (Some(time(5_000)), Some(true)));
    assert_eq!((two.last_seen, two.online), (None, Some(false)));
    assert_eq!(ids(&netmap), [1, 2]);
}

#[test]
fn patch_sets_what_it_says_and_nothing_else() {
    let everything = PeerChange {
        node_id: NodeId(1),
        derp_region: DerpRegionId(2),
        cap: CapabilityVersion(141),
        cap_map: Some([("flag".to_owned(), None)].into()),
        endpoints: Some(vec![]),
        key: Some(NodePublic::from_bytes([2; 32])),
        key_signature: Base64(vec![2]),
        disco_key: Some(DiscoPublic::from_bytes([2; 32])),
        online: Some(true),
        last_seen: Some(time(2_000)),
        key_expiry: Some(time(8_000)),
    };
    let expected = Node {
        home_derp: DerpRegionId(2),
        cap: CapabilityVersion(141),
        cap_map: [("flag".to_owned(), None)].into(),
        endpoints: vec![],
        key: NodePublic::from_bytes([2; 32]),
        key_signature: Base64(vec![2]),
        disco_key: DiscoPublic::from_bytes([2; 32]),
        online: Some(true),
        last_seen: Some(time(2_000)),
        key_expiry: Some(time(8_000)),
        ..peer(1)
    };
    let nothing = PeerChange { node_id: NodeId(1), ..PeerChange::default() };
    let unknown = PeerChange { node_id: NodeId(77), ..everything.clone() };
    assert_eq!(netmap([full(vec![peer(1)]), patched(everything)]), netmap([full(vec![expected])]));
    let before = netmap([full(vec![peer(1)])]);
    assert_eq!(netmap([full(vec![peer(1)]), patched(nothing)]), before);
    assert_eq!(netmap([full(vec![peer(1)]), patched(unknown)]), before);
}

fn rules(source: &str) -> Vec<FilterRule> {
    vec![FilterRule { src_ips: [source.into()].into(), ..FilterRule::default() }]
}

fn filters(named: &[(&str, Option<Vec<FilterRule>>)]) -> MapResponse {
    let named = named.iter().map(|(name, rules)| ((*name).to_owned(), rules.clone()));
    MapResponse { packet_filters: named.collect(), ..MapResponse::default() }
}

fn check_filters(messages: impl IntoIterator<Item = MapResponse>, expected: &[&str]) {
    let netmap = netmap(messages);
    let named = netmap.packet_filters.iter();
    let actual: Vec<_> = named
        .map(|(name, rules)| match &rules[..] {
            [] => format!("{name}: none"),
            rules => format!("{name}: {}", rules[0].src_ips[0]),
        })
        .collect();
    assert_eq!(actual, expected);
}

#[test]
fn packet_filters_are_patched_by_name() {
    let base = |rules| MapResponse { packet_filter: Some(rules), ..MapResponse::default() };
    let first = || filters(&[("*", None), ("a", Some(rules("1"))), ("b", Some(rules("2")))]);
    check_filters([first()], &["a: 1", "b: 2"]);
    let second = filters(&[("a", None), ("b", Some(vec![])), ("c", Some(rules("3")))]);
    check_filters([first(), second], &["b: none", "c: 3"]);
    check_filters([first(), base(rules("4"))], &["a: 1", "b: 2", "base: 4"]);
    check_filters([base(rules("4")), filters(&[("*", None)])], &[]);
    check_filters([base(rules("4")), base(vec![])], &["base: none"]);
    let both = MapResponse { packet_filter: Some(rules("5")), ..first() };
    check_filters([base(rules("4")), both], &["a: 1", "b: 2"]);
}

#[test]
fn display_messages_are_patched_by_id_and_health_replaced() {
    let text = |title: &str| DisplayMessage {
        title: title.to_owned(),
        severity: DisplayMessageSeverity::Low,
        ..DisplayMessage::default()
    };
    let message = |messages: &[(&str, Option<DisplayMessage>)], health: Option<&[&str]>| {
        let messages = messages.iter().map(|(id, message)| ((*id).to_owned(), message.clone()));
        MapResponse {
            display_messages: messages.collect(),
            health: health.map(|health| health.iter().map(|text| (*text).to_owned()).collect()),
            ..MapResponse::default()
        }
    };
    let first = || message(&[("a", Some(text("A"))), ("b", Some(text("B")))], Some(&["ill"]));
    let after = netmap([first(), message(&[("a", None)], None)]);
    assert_eq!(after.display_messages.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(after.health, ["ill"]);
    let after = netmap([first(), message(&[("*", None), ("c", Some(text("C")))], Some(&[]))]);
    assert_eq!(after.display_messages.keys().collect::<Vec<_>>(), ["c"]);
    assert!(after.health.is_empty());
}

#[test]
fn derp_map_keeps_what_is_left_out() {
    let regions = |id| Some([(DerpRegionId(id), DerpRegion::default())].into());
    let score = |id| Some(DerpHomeParams { region_score: Some([(DerpRegionId(id), 0.5)].into()) });
    let with =
        |map: DerpMap| MapResponse { derp_map: Some(Arc::new(map)), ..MapResponse::default() };
    let first = || {
        let map =
            DerpMap { home_params: score(1), regions: regions(1), omit_default_regions: true };
        with(map)
    };
    let check = |second: DerpMap, expected: DerpMap| {
        assert_eq!(netmap([first(), with(second)]).derp_map.as_deref(), Some(&expected));
    };
    let kept = DerpMap { home_params: score(1), regions: regions(1), omit_default_regions: true };
    check(DerpMap::default(), kept.clone());
    let no_score = Some(DerpHomeParams { region_score: None });
    check(DerpMap { home_params: no_score, ..DerpMap::default() }, kept.clone());
    let reset = Some(DerpHomeParams { region_score: Some(BTreeMap::new()) });
    check(
        DerpMap { home_params: reset.clone(), ..DerpMap::default() },
        DerpMap { home_params: reset, ..kept.clone() },
    );
    check(
        DerpMap { regions: regions(2), ..DerpMap::default() },
        DerpMap { regions: regions(2), omit_default_regions: false, ..kept },
    );
}

#[test]
fn what_is_absent_stays() {
    let before = MapResponse {
        dns_config: Some(DnsConfig { proxied: true, ..DnsConfig::default() }),
        ssh_policy: Some(SshPolicy::default()),
        tka_info: Some(TkaInfo::default()),
        collect_services: Some(true),
        domain_data_plane_audit_log_id: "log".to_owned(),
        ..full(vec![peer(1)])
    };
    let once = netmap([before.clone()]);
    assert_eq!(netmap([before.clone(), MapResponse::default()]), once);
    let keep_alive = MapResponse { keep_alive: true, ..full(vec![peer(5)]) };
    assert_eq!(netmap([before, keep_alive]), once);
    assert!(once.dns_config.is_some() && once.ssh_policy.is_some() && once.tka_info.is_some());
    assert!(once.collect_services && once.node.is_some() && once.domain == "example");
}

#[test]
fn normalized_drops_what_nobody_can_see() {
    let online = |last_seen| Node { online: Some(true), last_seen, ..peer(1) };
    let mut long_session = full(vec![online(Some(time(1)))]);
    long_session.user_profiles.push(profile(7));
    long_session.packet_filters = [("empty".to_owned(), Some(vec![]))].into();
    long_session.ssh_policy = Some(SshPolicy::default());
    let (long, fresh) = (netmap([long_session]), netmap([full(vec![online(None)])]));
    assert_ne!(long, fresh);
    assert_eq!(long.normalized(), fresh.normalized());
    let shared = Node { sharer: UserId(7), ..peer(1) };
    let mut message = full(vec![shared]);
    message.user_profiles.push(profile(7));
    assert_eq!(netmap([message]).normalized().user_profiles.len(), 2);
}

/// What a stock client holds of `before` after the change to `after`, and whether it took that in place.
fn stock(before: Node, after: Node) -> (Node, Applied) {
    let mut netmap = netmap([full(vec![before])]);
    let applied = netmap.apply_as_stock(changed(vec![after]), time(5_000));
    (netmap.peers.into_values().next().expect("a peer"), applied)
}

/// Checks a change that differs only where a patch could; `lost` if the stock client does not notice it.
fn check_stock(before: Node, after: Node, lost: bool, cost: Applied) {
    let expected = upgraded(if lost { before.clone() } else { after.clone() });
    assert_eq!(stock(before, after), (expected, cost));
}

#[test]
fn stock_client_takes_fast_changes_in_place() {
    let cases = [
        Node { endpoints: endpoints(2), ..peer(1) },
        Node { home_derp: DerpRegionId(2), ..peer(1) },
        Node { online: Some(true), ..peer(1) },
        Node { last_seen: Some(time(2_000)), ..peer(1) },
        Node { name: "renamed.".to_owned(), key: NodePublic::from_bytes([2; 32]), ..peer(1) },
        peer(1),
    ];
    for after in cases {
        check_stock(peer(1), after, false, Applied::InPlace);
    }
}

#[test]
fn stock_client_rebuilds_for_slow_changes() {
    let cases = [
        Node { cap: CapabilityVersion(141), ..peer(1) },
        Node { cap_map: [("flag".to_owned(), None)].into(), ..peer(1) },
        Node { key: NodePublic::from_bytes([2; 32]), ..peer(1) },
        Node { key_signature: Base64(vec![2]), ..peer(1) },
        Node { disco_key: DiscoPublic::from_bytes([2; 32]), ..peer(1) },
        Node { key_expiry: Some(time(8_000)), ..peer(1) },
        Node { key_expiry: None, ..peer(1) },
    ];
    for after in cases {
        check_stock(peer(1), after, false, Applied::Rebuilt);
    }
}

#[test]
fn stock_client_loses_what_becomes_none() {
    let cases = [
        Node { endpoints: vec![], ..peer(1) },
        Node { home_derp: DerpRegionId(0), ..peer(1) },
        Node { cap: CapabilityVersion(0), ..peer(1) },
        Node { key_signature: Base64(vec![]), ..peer(1) },
        Node { last_seen: None, ..peer(1) },
        Node { online: None, ..peer(1) },
    ];
    for after in cases {
        check_stock(peer(1), after.clone(), true, Applied::InPlace);
        let renamed = Node { name: "renamed.".to_owned(), ..after };
        check_stock(peer(1), renamed, false, Applied::InPlace);
    }
    check_stock(Node { online: None, ..peer(1) }, peer(1), true, Applied::InPlace);
}

#[test]
fn stock_client_distrusts_disco_keys_of_the_absent() {
    let known = || netmap([full(vec![peer(1)])]);
    let patch = |online, seen| PeerChange {
        node_id: NodeId(1),
        disco_key: Some(DiscoPublic::from_bytes([2; 32])),
        online: Some(online),
        last_seen: Some(time(seen)),
        ..PeerChange::default()
    };
    let after = |message: MapResponse| {
        let mut netmap = known();
        netmap.apply_as_stock(message, time(5_000));
        netmap
    };
    assert_eq!(after(patched(patch(false, 1_000))), known());
    for trusted in [patch(false, 1_001), patch(true, 1_000)] {
        let mut expected = known();
        expected.apply(patched(trusted.clone()), time(5_000));
        assert_eq!(after(patched(trusted)), expected);
    }
    let rotated = Node { disco_key: DiscoPublic::from_bytes([2; 32]), ..peer(1) };
    assert_eq!(after(full(vec![rotated.clone()])), known());
    let seen_since = Node { last_seen: Some(time(1_001)), ..rotated };
    assert_eq!(after(full(vec![seen_since.clone()])), netmap([full(vec![seen_since])]));
}

#[test]
fn first_message_and_configuration_cost_a_rebuild() {
    let mut netmap = Netmap::default();
    assert_eq!(netmap.apply_as_stock(full(vec![peer(1)]), time(0)), Applied::Rebuilt);
    assert_eq!(netmap.apply_as_stock(changed(vec![peer(2)]), time(0)), Applied::InPlace);
    let removed = MapResponse { peers_removed: vec![NodeId(1)], ..filters(&[("a", None)]) };
    assert_eq!(netmap.apply_as_stock(removed, time(0)), Applied::InPlace);
    assert_eq!(netmap.apply_as_stock(full(vec![]), time(0)), Applied::Rebuilt);
}

/// Peers that differ in a field of every kind.
fn any_peer() -> impl Strategy<Value = Node> {
    (1_u64..6, 0_u16..3, 0_u8..2, any::<bool>(), 0_u8..2, 0_i64..3).prop_map(
        |(id, port, derp, online, letter, seen)| Node {
            name: format!("{letter}.example."),
            endpoints: if port == 0 { vec![] } else { endpoints(port) },
            home_derp: DerpRegionId(derp.into()),
            online: Some(online),
            last_seen: (!online).then(|| time(seen)),
            ..peer(id)
        },
    )
}

fn any_state() -> impl Strategy<Value = Vec<Node>> {
    prop::collection::vec(any_peer(), 0..5).prop_map(|peers| {
        peers.into_iter().map(by_id).collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

/// The plainest delta: what is gone, and whole nodes for what is new or differs.
fn delta(from: &[Node], to: &[Node]) -> MapResponse {
    let gone = from.iter().filter(|node| to.iter().all(|other| other.id != node.id));
    MapResponse {
        peers_removed: gone.map(|node| node.id).collect(),
        peers_changed: to.iter().filter(|node| !from.contains(node)).cloned().collect(),
        ..MapResponse::default()
    }
}

proptest! {
    #[test]
    fn sum_of_all_deltas_is_the_full_netmap(states in prop::collection::vec(any_state(), 1..8)) {
        let mut session = SessionRules::new();
        let mut sum = Netmap::default();
        let mut before: Option<Vec<Node>> = None;
        for state in states {
            let message = match &before {
                Some(before) => delta(before, &state),
                None => full(state.clone()),
            };
            prop_assert_eq!(session.apply(&message), Ok(()));
            sum.apply(message, time(5_000));
            prop_assert_eq!(sum.clone().normalized(), netmap([full(state.clone())]).normalized());
            prop_assert!(session.peers().iter().eq(sum.peers.keys()));
            before = Some(state);
        }
    }
}
