use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_client::Netmap;
use mesh_wire::{Base64, CapabilityVersion, DerpRegionId, Hostinfo, PeerChange, RawJson, UserId};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// A peer of a few numbers, so that random ones often have something in common.
fn node((id, key, address, variant): (u64, u8, u8, u8)) -> Node {
    let own = format!("100.64.0.{address}/32");
    let subnet = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"][usize::from(variant % 3)];
    Node {
        id: NodeId(id),
        stable_id: format!("n{id}"),
        name: format!("peer-{key}.example."),
        user: UserId(u64::from(variant)),
        key: NodePublic::from_bytes([key; 32]),
        disco_key: DiscoPublic::from_bytes([variant % 2; 32]),
        key_signature: Base64(vec![1; usize::from(variant % 2)]),
        addresses: prefixes(&[&own]),
        allowed_ips: (variant % 4 < 2).then(|| prefixes(&[&own, subnet])),
        endpoints: vec![([192, 0, 2, variant], 41641).into()],
        home_derp: DerpRegionId(u32::from(variant % 2)),
        hostinfo: (variant % 2 == 0)
            .then(|| Arc::new(Hostinfo { os: "linux".to_owned(), ..Hostinfo::default() })),
        tags: vec!["tag:web".to_owned(); usize::from(variant % 2)],
        cap_map: [("funnel".to_owned(), Some(vec![RawJson::from(serde_json::json!(variant))]))]
            .into(),
        unsigned_peer_api_only: variant == 5,
        online: [None, Some(true), Some(false)][usize::from(variant % 3)],
        ..Node::default()
    }
}

fn nodes() -> impl Strategy<Value = Node> {
    (1..12_u64, 1..8_u8, 1..8_u8, 0..8_u8).prop_map(node)
}

fn patches() -> impl Strategy<Value = PeerChange> {
    (1..12_u64, 0..3_u32, option::of(1..8_u8), 0..8_u8).prop_map(|(id, region, key, variant)| {
        PeerChange {
            node_id: NodeId(id),
            derp_region: DerpRegionId(region),
            cap: CapabilityVersion(u32::from(variant % 2)),
            key: key.map(|key| NodePublic::from_bytes([key; 32])),
            disco_key: (variant % 3 == 0).then(|| DiscoPublic::from_bytes([variant; 32])),
            endpoints: (variant % 2 == 0).then(Vec::new),
            key_signature: Base64(vec![2; usize::from(variant % 2)]),
            cap_map: (variant == 1).then(BTreeMap::new),
            online: (variant % 4 == 0).then_some(true),
            ..PeerChange::default()
        }
    })
}

prop_compose! {
    fn messages()(
        peers in option::weighted(0.2, vec(nodes(), 1..6)),
        peers_changed in vec(nodes(), 0..3),
        peers_removed in vec((1..12_u64).prop_map(NodeId), 0..2),
        peers_changed_patch in vec(patches(), 0..3),
        online_change in btree_map((1..12_u64).prop_map(NodeId), any::<bool>(), 0..2),
        peer_seen_change in btree_map((1..12_u64).prop_map(NodeId), any::<bool>(), 0..2),
        keep_alive in proptest::bool::weighted(0.05),
    ) -> MapResponse {
        MapResponse {
            peers: peers.unwrap_or_default(),
            peers_changed,
            peers_removed,
            peers_changed_patch,
            online_change,
            peer_seen_change,
            keep_alive,
            ..MapResponse::default()
        }
    }
}

/// Adds an event to what all events before said is taken.
fn hear(taken: &mut BTreeSet<PeerIndex>, event: &Event) {
    match event {
        Event::Came(index) => assert!(taken.insert(*index), "{index:?} was taken"),
        Event::Went(index, _) => assert!(taken.remove(index), "{index:?} was free"),
        Event::Changed(index, _) => assert!(taken.contains(index), "{index:?} is free"),
    }
}

fn check_indexes(table: &PeerTable) {
    for (index, peer) in table.iter() {
        assert_eq!(table.by_id(peer.id), Some(index));
        assert_eq!(table.by_stable_id(&peer.stable_id), Some(index));
        let named = table.by_name(&peer.name).and_then(|index| table.get(index));
        assert!(named.is_none_or(|named| named.name == peer.name));
        let keyed = table.by_key(&peer.key).and_then(|index| table.get(index));
        assert!(keyed.is_none_or(|keyed| keyed.key == peer.key));
        for prefix in peer.routed().filter(|prefix| prefix.prefix_len() > 0) {
            let owner = table.by_address(prefix.addr()).and_then(|index| table.get(index));
            let owner = owner.expect("somebody has what a peer claims");
            assert!(owner.routed().any(|claim| claim.contains(&prefix.addr())));
        }
    }
}

proptest! {
    /// The same peers as the fold that judges servers, whatever came in whatever order.
    #[test]
    fn table_is_the_sum_of_all_messages(messages in vec(messages(), 1..20)) {
        let (mut table, mut netmap) = (PeerTable::new(), Netmap::default());
        let mut taken = BTreeSet::new();
        for message in messages {
            let mut rest = message.clone();
            let mut events = Vec::new();
            table.apply(&mut rest, time(5_000), &mut events);
            netmap.apply(message, time(5_000));
            prop_assert!(!rest.has_peer_deltas() && rest.peers.is_empty());
            for event in &events {
                hear(&mut taken, event);
            }
            let peers: BTreeMap<NodeId, Node> =
                table.iter().map(|(_, peer)| (peer.id, peer.to_node())).collect();
            prop_assert_eq!(&peers, &netmap.peers);
            prop_assert_eq!(table.len(), peers.len());
            prop_assert_eq!(&taken, &table.iter().map(|(index, _)| index).collect());
            check_indexes(&table);
        }
        table.clear(&mut Vec::new());
        prop_assert!(table.is_empty());
        prop_assert_eq!((table.by_name.len(), table.by_key.len()), (0, 0));
        prop_assert_eq!((table.by_disco_key.len(), table.by_stable_id.len()), (0, 0));
        prop_assert_eq!(table.by_address("10.1.2.3".parse().expect("an address")), None);
    }
}

proptest! {
    /// Whatever was there before: a list in parts, after one that broke off, is the list.
    #[test]
    fn list_in_parts_is_the_list(
        before in vec(nodes(), 0..6),
        broken_off in vec(nodes(), 0..4),
        parts in vec(vec(nodes(), 0..4), 1..4),
    ) {
        let mut table = table(before);
        let mut taken: BTreeSet<_> = table.iter().map(|(index, _)| index).collect();
        let mut events = Vec::new();
        table.apply_listed(&mut PeerList::default(), broken_off, &mut events);
        let mut list = PeerList::default();
        for part in parts.clone() {
            table.apply_listed(&mut list, part, &mut events);
        }
        table.finish_list(&list, &mut events);
        for event in &events {
            hear(&mut taken, event);
        }
        prop_assert_eq!(taken, table.iter().map(|(index, _)| index).collect());
        let mut netmap = Netmap::default();
        let message = MapResponse { peers_changed: parts.concat(), ..MapResponse::default() };
        netmap.apply(message, time(1));
        let peers: BTreeMap<NodeId, Node> =
            table.iter().map(|(_, peer)| (peer.id, peer.to_node())).collect();
        prop_assert_eq!(peers, netmap.peers);
        check_indexes(&table);
    }
}

fn table(peers: Vec<Node>) -> PeerTable {
    let mut table = PeerTable::new();
    let mut message = MapResponse { peers, ..MapResponse::default() };
    table.apply(&mut message, time(1), &mut Vec::new());
    table
}

fn apply(table: &mut PeerTable, mut message: MapResponse) -> Vec<Event> {
    let mut events = Vec::new();
    table.apply(&mut message, time(1), &mut events);
    events
}

#[test]
fn longest_prefix_wins_and_an_exit_route_is_no_answer() {
    let behind = |id, subnet: &str| Node {
        id: NodeId(id),
        stable_id: format!("n{id}"),
        addresses: prefixes(&[&format!("100.64.0.{id}/32")]),
        allowed_ips: Some(prefixes(&[&format!("100.64.0.{id}/32"), subnet])),
        ..Node::default()
    };
    let table =
        table(vec![behind(1, "10.0.0.0/8"), behind(2, "10.1.0.0/16"), behind(3, "0.0.0.0/0")]);
    let who = |address: &str| {
        let index = table.by_address(address.parse().expect("an address"))?;
        table.get(index).map(|peer| peer.id.0)
    };
    assert_eq!(who("100.64.0.3"), Some(3));
    assert_eq!(who("10.1.2.3"), Some(2));
    assert_eq!(who("10.2.2.3"), Some(1));
    assert_eq!(who("192.0.2.1"), None);
}

#[test]
fn events_say_what_to_act_on() {
    let mut table = table(vec![node((1, 1, 1, 0)), node((2, 2, 2, 0))]);
    let [one, two] = [1, 2].map(|id| table.by_id(NodeId(id)).expect("a peer"));
    let moved = PeerChange {
        node_id: NodeId(1),
        derp_region: DerpRegionId(9),
        disco_key: Some(DiscoPublic::from_bytes([9; 32])),
        ..PeerChange::default()
    };
    let events = apply(
        &mut table,
        MapResponse { peers_changed_patch: vec![moved], ..MapResponse::default() },
    );
    let changed = Changed { home_derp: true, disco_key: true, ..Changed::default() };
    assert_eq!(events, [Event::Changed(one, changed)]);
    let same = apply(
        &mut table,
        MapResponse { peers_changed: vec![node((2, 2, 2, 0))], ..MapResponse::default() },
    );
    assert_eq!(same, []);
    let gone = apply(
        &mut table,
        MapResponse {
            peers: vec![node((3, 3, 3, 0)), node((2, 2, 2, 0))],
            ..MapResponse::default()
        },
    );
    assert!(matches!(&gone[..], [Event::Went(went, peer), Event::Came(came)]
        if *went == one && *came == one && peer.id == NodeId(1)));
    assert_eq!(table.by_id(NodeId(2)), Some(two));
}

#[test]
fn peers_beyond_the_limit_are_passed_over_until_there_is_room() {
    let most = u64::try_from(PEERS_MAX).expect("a small number");
    let numbered = |id| Node { id: NodeId(id), ..Node::default() };
    let mut table = table((1..=most + 1).map(numbered).collect());
    assert_eq!((table.len(), table.by_id(NodeId(most + 1))), (PEERS_MAX, None));
    apply(
        &mut table,
        MapResponse {
            peers_removed: vec![NodeId(1)],
            peers_changed: vec![numbered(most + 2)],
            ..MapResponse::default()
        },
    );
    assert_eq!(table.len(), PEERS_MAX);
    assert!(table.by_id(NodeId(most + 2)).is_some());
}

#[test]
fn a_peer_takes_little_room() {
    assert!(size_of::<Peer>() <= 352, "{}", size_of::<Peer>());
}
