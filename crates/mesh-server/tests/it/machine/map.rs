use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode};
use mesh_client::{ControlClient, MapStream, RequestError};
use mesh_netmap::MapContext;
use mesh_server::derp_map::{DerpSource, merge};
use mesh_state::Command;
use mesh_testkit::{at, disco_key, node_key};
use mesh_wire::{CapabilityVersion, DerpRegionId, Hostinfo, MapRequest, MapResponse, NetInfo};
use tokio::time::timeout;

use crate::server::{TestServer, map_request, within};

/// A map request that is no stream.
fn once(number: u8) -> MapRequest {
    MapRequest { stream: false, ..map_request(number) }
}

/// A lite update, in which the node is at this port.
fn lite(number: u8, port: u16) -> MapRequest {
    let net_info = NetInfo { preferred_derp: DerpRegionId(900), ..NetInfo::default() };
    let hostinfo = Hostinfo {
        hostname: "renamed".to_owned(),
        net_info: Some(net_info),
        ..Hostinfo::default()
    };
    MapRequest {
        omit_peers: true,
        endpoints: vec![([192, 0, 2, 1], port).into()],
        disco_key: disco_key(number.into()),
        hostinfo: Some(Box::new(hostinfo)),
        ..once(number)
    }
}

/// A registered node that peers are told of, which they are once it has a disco key.
async fn announce(server: &TestServer, number: u8) -> ControlClient {
    let client = server.join(number).await;
    let disco_key = disco_key(number.into());
    let request = MapRequest { disco_key, omit_peers: true, ..once(number) };
    within(client.lite_update(&request)).await.unwrap();
    server.until(|server| server.node(number).unwrap().disco_key == disco_key).await;
    client
}

async fn open(client: &ControlClient, request: &MapRequest) -> MapStream {
    within(client.map_stream(request)).await.unwrap()
}

async fn next(stream: &mut MapStream) -> MapResponse {
    within(stream.next()).await.unwrap().unwrap()
}

/// The status of a request that is refused.
async fn refused(client: &ControlClient, request: &MapRequest) -> StatusCode {
    let error = within(client.map_stream(request)).await.unwrap_err();
    let RequestError::Status { status, .. } = error else { panic!("{error:?}") };
    status
}

#[tokio::test]
async fn a_stream_begins_with_everything_and_goes_on_with_changes() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    announce(&server, 2).await;
    let mut stream = open(&client, &map_request(1)).await;
    let first = next(&mut stream).await;
    assert_eq!(first.node.as_ref().unwrap().key, node_key(1));
    assert_eq!(first.peers.iter().map(|peer| peer.key).collect::<Vec<_>>(), [node_key(2)]);
    assert!(first.derp_map.is_some() && first.dns_config.is_some());
    assert_eq!(first.domain, "test.internal");
    announce(&server, 3).await;
    let mut changed = Vec::new();
    while changed.is_empty() {
        changed = next(&mut stream).await.peers_changed;
    }
    assert_eq!(changed[0].key, node_key(3));
}

#[tokio::test]
async fn another_derp_map_reaches_whoever_is_connected() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let mut stream = open(&client, &map_request(1)).await;
    next(&mut stream).await;
    let said = b"regions: {901: {nodes: [{name: 901a, hostname: derp.example.com}]}}";
    let map = Arc::new(merge(&[], &[DerpSource::parse_sound(said).unwrap()]).unwrap());
    server.contexts.send_modify(|context| {
        *context = Arc::new(MapContext { derp_map: map.clone(), ..MapContext::clone(context) });
    });
    let mut told = None;
    while told.is_none() {
        told = next(&mut stream).await.derp_map;
    }
    assert_eq!(told, Some(map));
}

#[tokio::test]
async fn both_compressions_say_the_same() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    announce(&server, 2).await;
    let mut messages = Vec::new();
    for compress in ["", "zstd"] {
        for stream in [false, true] {
            let request = MapRequest { compress: compress.to_owned(), stream, ..map_request(1) };
            let mut message = next(&mut open(&client, &request).await).await;
            message.control_time = None;
            // Opening a stream brings the node online, and puts its sign of life on the record.
            let node = message.node.as_mut().unwrap();
            (node.online, node.last_seen) = (None, None);
            messages.push(message);
        }
    }
    assert!(messages.iter().all(|message| *message == messages[0]), "{messages:#?}");
}

#[tokio::test]
async fn another_compression_is_refused() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    for compress in ["gzip", "ZSTD", " ", &"z".repeat(1000)] {
        for stream in [false, true] {
            let request = MapRequest { compress: compress.to_owned(), stream, ..map_request(1) };
            assert_eq!(refused(&client, &request).await, StatusCode::BAD_REQUEST);
        }
    }
}

#[tokio::test]
async fn an_unknown_key_is_not_found() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    for request in [map_request(1), once(1), lite(1, 1), MapRequest::default()] {
        let request = MapRequest { version: CapabilityVersion::CURRENT, ..request };
        assert_eq!(refused(&client, &request).await, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn an_old_client_is_refused() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let request = MapRequest { version: CapabilityVersion(112), ..map_request(1) };
    assert_eq!(refused(&client, &request).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_deleted_node_is_told_that_its_key_counts_no_more() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    announce(&server, 2).await;
    let mut open_before = open(&client, &map_request(1)).await;
    next(&mut open_before).await;
    let node = server.node(1).unwrap().id;
    server.submit(Command::DeleteNode { node }).await;

    for request in [map_request(1), MapRequest { compress: "zstd".to_owned(), ..map_request(1) }] {
        let mut stream = open(&client, &request).await;
        let message = next(&mut stream).await;
        let node = message.node.unwrap();
        assert_eq!((node.key, node.expired), (node_key(1), true));
        assert!(node.key_expiry.is_some_and(|expiry| expiry <= at(0)));
        assert!(message.peers.is_empty());
        // At the end of the stream it would ask again at once.
        let ended = timeout(Duration::from_millis(50), stream.next()).await;
        assert!(ended.is_err(), "the stream is held open: {ended:?}");
    }
    // So is the stream that was open.
    let mut last = None;
    while let Some(message) = within(open_before.next()).await.unwrap() {
        last = Some(message);
    }
    assert!(last.unwrap().node.unwrap().expired);
    assert_eq!(refused(&client, &once(1)).await, StatusCode::NOT_FOUND);
    assert_eq!(refused(&client, &lite(1, 1)).await, StatusCode::NOT_FOUND);
    // Only the machine whose node it was is told.
    assert_eq!(refused(&server.client(3).await, &map_request(1)).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_lite_update_is_answered_at_once_and_applied() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let other = announce(&server, 2).await;
    let mut stream = open(&client, &map_request(1)).await;
    next(&mut stream).await;
    let mut watching = open(&other, &map_request(2)).await;
    next(&mut watching).await;

    let body = serde_json::to_vec(&lite(1, 41641)).unwrap();
    let answer = within(client.post_raw("/machine/map", body)).await.unwrap();
    assert_eq!((answer.status(), &**answer.body()), (StatusCode::OK, &b""[..]));
    server.until(|server| server.node(1).unwrap().home_derp == Some(900)).await;
    let node = server.node(1).unwrap();
    assert_eq!(node.endpoints, ["192.0.2.1:41641".parse().unwrap()]);
    assert_eq!((node.disco_key, &*node.hostinfo.hostname), (disco_key(1), "renamed"));
    // Peers hear of it, the node's own stream goes on.
    let mut told = false;
    while !told {
        let message = next(&mut watching).await;
        let patched = message.peers_changed_patch.iter().any(|patch| patch.endpoints.is_some());
        told = patched || message.peers_changed.iter().any(|peer| !peer.endpoints.is_empty());
    }
    announce(&server, 3).await;
    while next(&mut stream).await.peers_changed.is_empty() {}
}

#[tokio::test]
async fn a_stream_changes_nothing_about_its_node() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    for stale in [
        MapRequest { stream: true, ..lite(1, 1) },
        MapRequest { stream: true, omit_peers: false, ..lite(1, 2) },
        MapRequest { read_only: true, ..lite(1, 3) },
    ] {
        open(&client, &stale).await;
        let node = server.node(1).unwrap();
        assert!(node.endpoints.is_empty() && node.home_derp.is_none());
        assert_eq!(node.hostinfo.hostname, "machine-1");
    }
}

#[tokio::test]
async fn a_newer_stream_takes_over() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let mut older = open(&client, &map_request(1)).await;
    next(&mut older).await;
    // From another connection, as after a change of networks.
    let moved = server.client(1).await;
    let mut newer = open(&moved, &map_request(1)).await;
    next(&mut newer).await;
    assert!(within(older.next()).await.unwrap().is_none());
    announce(&server, 2).await;
    assert_eq!(next(&mut newer).await.peers_changed[0].key, node_key(2));
    assert!(server.node(1).unwrap().session.is_some());
}

#[tokio::test]
async fn a_single_map_is_one_message() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    announce(&server, 2).await;
    let mut stream = open(&client, &once(1)).await;
    let message = next(&mut stream).await;
    assert_eq!((message.node.unwrap().key, message.peers.len()), (node_key(1), 1));
    assert!(within(stream.next()).await.unwrap().is_none());
    assert!(server.node(1).unwrap().session.is_none(), "it brings nobody online");
}

#[tokio::test]
async fn an_expired_node_is_told_so_and_stays() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    announce(&server, 2).await;
    let node = server.node(1).unwrap().id;
    server.submit(Command::SetNodeExpiry { node, expires_at: Some(at(0)) }).await;
    let message = next(&mut open(&client, &map_request(1)).await).await;
    assert!(message.node.unwrap().key_expiry.is_some_and(|expiry| expiry <= at(0)));
    assert!(server.node(1).is_some());
}

#[tokio::test]
async fn a_node_whose_client_hangs_up_goes_offline() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let mut stream = open(&client, &map_request(1)).await;
    next(&mut stream).await;
    assert!(server.node(1).unwrap().session.is_some());
    drop((stream, client));
    server.until(|server| server.channels() == 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(server.node(1).unwrap().session.is_none());
}

#[tokio::test]
async fn a_hundred_streams_of_one_node_leave_one() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = open(&client, &map_request(1)).await;
        next(&mut stream).await;
        streams.push(stream);
    }
    let mut newest = streams.pop().unwrap();
    for mut stream in streams {
        assert!(within(stream.next()).await.unwrap().is_none());
    }
    announce(&server, 2).await;
    assert_eq!(next(&mut newest).await.peers_changed.len(), 1);
}

#[tokio::test]
async fn it_is_posted_to() {
    let server = TestServer::start().await;
    let client = announce(&server, 1).await;
    let answer = client.request(Method::GET, "/machine/map", "").await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}
