use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_wire::{Hostinfo, MapResponse, Node, PeerChange};
use proptest::prelude::*;

use super::*;

/// Writes down what it is told.
#[derive(Debug, Default, PartialEq)]
struct Notes(Vec<String>);

impl PeerSink for Notes {
    fn keep_alive(&mut self) {
        self.0.push("keep-alive".to_owned());
    }

    fn node(&mut self, id: NodeId, raw: &[u8]) {
        let node: Node = serde_json::from_slice(raw).unwrap();
        self.0.push(format!("node {id} {}", node.name));
    }

    fn full(&mut self) {
        self.0.push("full".to_owned());
    }

    fn peer(&mut self, id: NodeId, raw: &[u8]) {
        let peer: Node = serde_json::from_slice(raw).unwrap();
        self.0.push(format!("peer {id} {}", peer.name));
    }

    fn removed(&mut self, id: NodeId) {
        self.0.push(format!("removed {id}"));
    }

    fn patched(&mut self, id: NodeId, raw: &[u8]) {
        let patch: PeerChange = serde_json::from_slice(raw).unwrap();
        self.0.push(format!("patched {id} {:?}", patch.online));
    }

    fn online(&mut self, id: NodeId, online: bool) {
        self.0.push(format!("online {id} {online}"));
    }
}

/// Scans in pieces that end at `cuts`, jumping wherever that is possible.
fn scan(json: &[u8], cuts: &[usize]) -> Result<Notes, ScanError> {
    let (mut notes, mut scanner, mut start) = (Notes::default(), Scanner::new(), 0);
    for &end in cuts.iter().chain([&json.len()]) {
        let end = end.clamp(start, json.len());
        scanner.feed(&json[start..end], &mut notes)?;
        start = end;
        if let Some(place) = scanner.place() {
            scanner = Scanner::new();
            scanner.jump(place);
        }
    }
    scanner.finish().map(|()| notes)
}

fn check(json: &str, expected: &[&str]) {
    let notes = scan(json.as_bytes(), &[]).expect(json);
    assert_eq!(notes.0, expected, "{json}");
}

#[test]
fn every_kind_of_news_is_found() {
    check("{}", &[]);
    check(r#"{"KeepAlive":true}"#, &["keep-alive"]);
    check(r#"{"KeepAlive":false}"#, &[]);
    check(r#"{"Node":{"ID":7,"Name":"a."}}"#, &["node 7 a."]);
    check(
        r#"{"Peers":[{"ID":1,"Name":"a."},{"Name":"b.","ID":2}]}"#,
        &["full", "peer 1 a.", "peer 2 b."],
    );
    check(r#"{"PeersChanged":[{"ID":1,"Name":"a."}]}"#, &["peer 1 a."]);
    check(r#"{"PeersRemoved":[3,4]}"#, &["removed 3", "removed 4"]);
    check(r#"{"PeersChangedPatch":[{"NodeID":5,"Online":true}]}"#, &["patched 5 Some(true)"]);
    check(r#"{"OnlineChange":{"5":true,"6":false}}"#, &["online 5 true", "online 6 false"]);
}

#[test]
fn only_top_level_keys_count() {
    check(r#"{"Debug":{"Peers":[{"ID":1}],"KeepAlive":true},"Domain":"\"Peers\":["}"#, &[]);
    let nested = r#"{"PeersChanged":[{"Hostinfo":{"ID":9,"Services":[{"ID":8}]},"ID":1}]}"#;
    check(nested, &["peer 1 "]);
    let quoted = r#"{"Peers":[{"Name":"}],\"ID\":9\\","ID":1}]}"#;
    check(quoted, &["full", r#"peer 1 }],"ID":9\"#]);
}

#[test]
fn space_and_null_are_nothing() {
    check(" {\n \"PeersRemoved\" : [ 3 ,\t4 ] , \"Peers\": null }\n", &["removed 3", "removed 4"]);
    check(r#"{"Peers":[],"PeersChanged":null,"Node":null,"OnlineChange":{}}"#, &[]);
}

#[test]
fn what_is_no_map_response_is_an_error() {
    for json in ["[]", "7", "{7}", r#"{"Peers":[7]}"#, r#"{"Peers":[{"Name":"a"}]}"#, "{}}"] {
        assert_eq!(scan(json.as_bytes(), &[]), Err(ScanError::Malformed), "{json}");
    }
    for json in [r#"{"PeersRemoved":[-1]}"#, r#"{"PeersRemoved":["a"]}"#, r#"{"Node":{}}"#] {
        assert_eq!(scan(json.as_bytes(), &[]), Err(ScanError::Malformed), "{json}");
    }
    let whole = br#"{"Peers":[{"ID":1,"Name":"a."}],"Domain":"b"}"#;
    for length in 0..whole.len() {
        assert_eq!(scan(&whole[..length], &[]), Err(ScanError::Unfinished), "{length} bytes");
    }
}

/// What a scanner should say, by decoding.
fn decoded(message: &MapResponse) -> Notes {
    let mut notes = Notes::default();
    if message.keep_alive {
        notes.keep_alive();
    }
    let raw = |node: &Node| serde_json::to_vec(node).unwrap();
    if let Some(node) = &message.node {
        notes.node(node.id, &raw(node));
    }
    for (position, peer) in message.peers.iter().enumerate() {
        if position == 0 {
            notes.full();
        }
        notes.peer(peer.id, &raw(peer));
    }
    for peer in &message.peers_changed {
        notes.peer(peer.id, &raw(peer));
    }
    for id in &message.peers_removed {
        notes.removed(*id);
    }
    for patch in &message.peers_changed_patch {
        notes.patched(patch.node_id, &serde_json::to_vec(patch).unwrap());
    }
    for (id, online) in &message.online_change {
        notes.online(*id, *online);
    }
    notes
}

fn any_node() -> impl Strategy<Value = Node> {
    (1_u64..1_000_000, ".{0,12}", ".{0,12}", 0_usize..3).prop_map(|(id, name, os, tags)| Node {
        id: NodeId(id),
        name,
        hostinfo: Some(Arc::new(Hostinfo {
            os,
            request_tags: vec!["tag:a\"]}".to_owned(); tags],
            ..Hostinfo::default()
        })),
        ..Node::default()
    })
}

fn any_message() -> impl Strategy<Value = MapResponse> {
    let nodes = || prop::collection::vec(any_node(), 0..4);
    let ids = prop::collection::vec(1_u64..99, 0..4);
    let patches = prop::collection::vec((1_u64..99, any::<Option<bool>>()), 0..4);
    let online = prop::collection::btree_map(1_u64..99, any::<bool>(), 0..4);
    let whole = (prop::option::of(any_node()), any::<bool>(), ".{0,12}");
    (whole, nodes(), nodes(), ids, patches, online).prop_map(
        |((node, keep_alive, domain), peers, peers_changed, ids, patches, online)| MapResponse {
            keep_alive,
            node: node.map(Box::new),
            domain,
            peers,
            peers_changed,
            peers_removed: ids.into_iter().map(NodeId).collect(),
            peers_changed_patch: patches
                .into_iter()
                .map(|(id, online)| PeerChange {
                    node_id: NodeId(id),
                    online,
                    ..PeerChange::default()
                })
                .collect(),
            online_change: online
                .into_iter()
                .map(|(id, online)| (NodeId(id), online))
                .collect::<BTreeMap<_, _>>(),
            ..MapResponse::default()
        },
    )
}

proptest! {
    #[test]
    fn scanner_sees_what_a_decoder_sees(
        message in any_message(),
        pretty: bool,
        mut cuts in prop::collection::vec(0_usize..3000, 0..4),
    ) {
        cuts.sort_unstable();
        let json = if pretty { serde_json::to_vec_pretty(&message) } else { serde_json::to_vec(&message) };
        let json = json.unwrap();
        prop_assert_eq!(scan(&json, &cuts).unwrap(), decoded(&message));
    }

    #[test]
    fn nothing_makes_it_panic(json in "[{}\\[\\]\",:a-zA-Z0-9\\\\ ]{0,80}", prefix in 0_usize..4) {
        struct Deaf;
        impl PeerSink for Deaf {
            fn keep_alive(&mut self) {}
            fn node(&mut self, _: NodeId, _: &[u8]) {}
            fn full(&mut self) {}
            fn peer(&mut self, _: NodeId, _: &[u8]) {}
            fn removed(&mut self, _: NodeId) {}
            fn patched(&mut self, _: NodeId, _: &[u8]) {}
            fn online(&mut self, _: NodeId, _: bool) {}
        }
        let prefix = ["", "{\"Peers\":[{", "{\"PeersRemoved\":[", "{\"OnlineChange\":{"][prefix];
        let _ = Scanner::new().feed(format!("{prefix}{json}").as_bytes(), &mut Deaf);
    }
}
