//! Streams under a policy.

use mesh_policy::Policy;
use mesh_state::Command;
use mesh_streamer::Compression;
use mesh_testkit::commands;
use tokio::time::sleep;

use crate::lab::{Lab, QUIET, check_quiet, next, ports};

/// Puts a policy in force under which alice's nodes reach some destination.
async fn set_policy(lab: &Lab, destination: &str) {
    let text = format!(
        r#"{{"tagOwners": {{"tag:web": ["alice@"]}},
        "acls": [{{"action": "accept", "src": ["alice@"], "dst": ["{destination}"]}}]}}"#
    );
    let policy = Policy::parse(&text, None).expect("the policy parses");
    lab.must(commands::set_policy(text, policy)).await;
}

/// Makes a node one that serves the web.
async fn tag(lab: &Lab, node: mesh_model::NodeId) {
    let tags = vec!["tag:web".parse().expect("a tag")];
    lab.must(Command::TagNode { node, tags }).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_hears_nothing_of_nodes_that_its_node_does_not_see() {
    let lab = Lab::new().await;
    let (viewer, other) = (lab.join(1).await, lab.join(2).await);
    set_policy(&lab, "tag:web:*").await;
    let mut stream = lab.follow(viewer).await;
    lab.move_to(other, 7).await;
    check_quiet(&mut stream).await;
    let third = lab.join(3).await;
    lab.move_to(third, 7).await;
    check_quiet(&mut stream).await;
    tag(&lab, third).await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_changed.len(), 1, "it has come into sight");
    lab.move_to(third, 8).await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(ports(&told), [8]);
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_is_told_with_the_peers_that_it_lets_in() {
    let lab = Lab::new().await;
    let servers = [lab.join(1).await, lab.join(2).await];
    for server in servers {
        tag(&lab, server).await;
    }
    set_policy(&lab, "tag:web:80").await;
    let mut streams = [
        lab.open(servers[0], Compression::None).await,
        lab.open(servers[1], Compression::None).await,
    ];
    for stream in &mut streams {
        stream.next().await.expect("the stream begins");
    }
    lab.join(3).await;
    for stream in &mut streams {
        let told = next(stream).await.expect("a message");
        assert_eq!((told.packet_filters.len(), told.peers_changed.len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_felt_on_an_open_stream() {
    let lab = Lab::new().await;
    let (viewer, other) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    set_policy(&lab, "tag:web:*").await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_removed, [mesh_wire::NodeId(other.0.into())]);
    assert!(told.packet_filters.values().all(Option::is_none), "nobody is let in");
    set_policy(&lab, "*:*").await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!((told.peers_changed.len(), told.packet_filters.len()), (1, 1));
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_change_does_not_concern_is_up_to_date_without_being_woken() {
    let lab = Lab::new().await;
    let (viewer, other) = (lab.join(1).await, lab.join(2).await);
    set_policy(&lab, "tag:web:*").await;
    let mut stream = lab.follow(viewer).await;
    check_quiet(&mut stream).await;
    let behind = || lab.streamer.streams().iter().find_map(|stream| stream.flushes_behind);
    for port in 1..=3 {
        lab.move_to(other, port).await;
        sleep(QUIET).await;
        assert_eq!(behind(), Some(0), "nobody reads the stream");
    }
    tag(&lab, other).await;
    sleep(QUIET).await;
    lab.move_to(other, 7).await;
    sleep(QUIET).await;
    assert_eq!(behind(), Some(2), "it has something to tell");
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_changed.len(), 1, "all of it at once");
    assert_eq!(behind(), Some(0));
    check_quiet(&mut stream).await;
}
