use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::Netmap;

fn compressed(json: &[u8]) -> Vec<u8> {
    zstd::encode_all(json, 1).expect("compress")
}

/// Takes a message apart that comes `chunk` bytes at a time.
fn parts(
    payload: &[u8],
    is_compressed: bool,
    chunk: usize,
) -> Result<Vec<MapPart>, MapStreamError> {
    let mut message = LongMessage::new(is_compressed, Bytes::new(), payload.len());
    let mut received = BytesMut::new();
    let mut parts = Vec::new();
    for bytes in payload.chunks(chunk) {
        received.extend_from_slice(bytes);
        while let Some((part, ended)) = message.take(&mut received)? {
            parts.push(part);
            if ended == Ended::Yes {
                return Ok(parts);
            }
        }
    }
    panic!("the message does not end");
}

/// What the parts add up to, after a netmap of before.
fn sum(mut netmap: Netmap, parts: Vec<MapPart>) -> Netmap {
    let mut list: Option<BTreeSet<NodeId>> = None;
    for part in parts {
        match part {
            MapPart::Peers(peers) => {
                list.get_or_insert_default().extend(peers.iter().map(|peer| peer.id));
                let part = MapResponse { peers_changed: peers, ..MapResponse::default() };
                netmap.apply(part, Timestamp::UNIX_EPOCH);
            }
            MapPart::Message(message) => {
                if let Some(list) = list.take() {
                    netmap.peers.retain(|id, _| list.contains(id));
                }
                netmap.apply(*message, Timestamp::UNIX_EPOCH);
            }
        }
    }
    netmap
}

fn node(id: u64, name: u8) -> Node {
    let name = format!("peer-{name}.example.");
    Node { id: NodeId(id), name, ..Node::default() }
}

fn nodes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Node>> {
    vec((1..9_u64, any::<u8>()).prop_map(|(id, name)| node(id, name)), count)
}

prop_compose! {
    fn messages()(
        peers in prop_oneof![Just(Vec::new()), nodes(1..6)],
        peers_changed in nodes(0..4),
        peers_removed in vec((1..9_u64).prop_map(NodeId), 0..3),
        patched in vec((1..9_u64, any::<bool>()), 0..3),
        online_change in btree_map((1..9_u64).prop_map(NodeId), any::<bool>(), 0..3),
        peer_seen_change in btree_map((1..9_u64).prop_map(NodeId), any::<bool>(), 0..3),
        domain in "[a-z\"]{0,4}",
        own in proptest::option::of(any::<u8>()),
    ) -> MapResponse {
        let patch = |(id, online)| PeerChange {
            node_id: NodeId(id),
            online: Some(online),
            ..PeerChange::default()
        };
        MapResponse {
            node: own.map(|name| Box::new(node(100, name))),
            peers,
            peers_changed,
            peers_removed,
            peers_changed_patch: patched.into_iter().map(patch).collect(),
            online_change,
            peer_seen_change,
            domain,
            ..MapResponse::default()
        }
    }
}

/// A message and its JSON with the fields in any order.
fn written() -> impl Strategy<Value = (MapResponse, String)> {
    messages().prop_flat_map(|message| {
        let json = serde_json::to_value(&message).expect("a message is JSON");
        let Value::Object(fields) = json else { panic!("a message is an object") };
        let fields: Vec<_> = fields.into_iter().collect();
        Just(fields).prop_shuffle().prop_map(move |fields| {
            let fields = fields.iter().map(|(key, value)| format!("\"{key}\":{value}"));
            (message.clone(), format!("{{{}}}", fields.collect::<Vec<_>>().join(" ,")))
        })
    })
}

proptest! {
    #[test]
    fn parts_come_to_the_same_as_the_message(
        before in nodes(0..6),
        (message, json) in written(),
        cut in 0_usize..2_000,
        chunk in 1_usize..3_000,
        is_compressed: bool,
    ) {
        let mut netmap = Netmap::default();
        let before = MapResponse { peers: before, ..MapResponse::default() };
        netmap.apply(before, Timestamp::UNIX_EPOCH);
        let mut expected = netmap.clone();
        expected.apply(message, Timestamp::UNIX_EPOCH);
        let (front, back) = json.as_bytes().split_at(cut.min(json.len()));
        let payload =
            if is_compressed { [compressed(front), compressed(back)].concat() } else { json.clone().into() };
        let parts = parts(&payload, is_compressed, chunk).expect("a message");
        prop_assert_eq!(sum(netmap, parts), expected);
    }
}

#[test]
fn first_map_comes_in_batches_and_its_rest_at_the_end() {
    let peers = (1..=5_000).map(|id| node(id, 0)).collect();
    let message = MapResponse { peers, domain: "example".to_owned(), ..MapResponse::default() };
    let json = serde_json::to_vec(&message).expect("a message is JSON");
    let mut parts = parts(&compressed(&json), true, 10_000).expect("a message");
    let Some(MapPart::Message(rest)) = parts.pop() else { panic!("no rest") };
    assert_eq!(*rest, MapResponse { domain: "example".to_owned(), ..MapResponse::default() });
    let mut ids = Vec::new();
    for part in parts {
        let MapPart::Peers(peers) = part else { panic!("{part:?}") };
        assert!(peers.len() * json.len() / 5_000 <= 2 * PIECE_BYTES, "{} in a batch", peers.len());
        ids.extend(peers.iter().map(|peer| peer.id.0));
    }
    assert_eq!(ids, (1..=5_000).collect::<Vec<_>>());
}

#[test]
fn more_entries_than_any_tailnet_has_are_refused() {
    let json = |count: usize| format!("{{\"PeersRemoved\":[{}1]}}", "1,".repeat(count - 1));
    let most = parts(json(NAMED_PEERS_MAX).as_bytes(), false, 1 << 20);
    assert_eq!(most.expect("a message").len(), 1);
    let more = parts(json(NAMED_PEERS_MAX + 1).as_bytes(), false, 1 << 20);
    assert!(matches!(more, Err(MapStreamError::TooManyPeers)), "{more:?}");
}

#[test]
fn what_must_be_kept_is_bounded() {
    let bomb = compressed(&[b"{\"Domain\":\"", &vec![b'a'; REST_BYTES_MAX][..], b"\"}"].concat());
    let error = parts(&bomb, true, 1 << 20).expect_err("too much");
    assert!(matches!(error, MapStreamError::TooMuchRest), "{error:?}");
}

#[test]
fn what_is_not_whole_is_an_error() {
    let json = br#"{"Peers":[{"ID":1,"Name":"a."}],"Domain":"b"}"#;
    let payload = compressed(json);
    for length in 1..payload.len() {
        let error = parts(&payload[..length], true, 7).expect_err("cut off");
        assert!(matches!(error, MapStreamError::Compression(_)), "{length}: {error:?}");
    }
    for length in 1..json.len() {
        let error = parts(&compressed(&json[..length]), true, 7).expect_err("cut off");
        assert!(matches!(error, MapStreamError::Scan(_)), "{length}: {error:?}");
    }
    for json in [r#"{"Peers":[{"ID":1,"Name":7}]}"#, r#"{"Domain":7}"#] {
        let error = parts(json.as_bytes(), false, 7).expect_err("another shape");
        assert!(matches!(error, MapStreamError::Json(_)), "{json}: {error:?}");
    }
}
