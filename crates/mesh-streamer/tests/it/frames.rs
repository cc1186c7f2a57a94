//! Frames that are made once for many.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::StreamExt;
use mesh_state::Command;
use mesh_streamer::Compression;

use crate::lab::{Lab, bytes_of, json_of, parse};

const BOTH: [Compression; 2] = [Compression::None, Compression::Zstd];

#[tokio::test(start_paused = true)]
async fn viewers_of_a_class_share_the_bytes_of_a_delta() {
    let lab = Lab::new().await;
    let mut nodes = Vec::new();
    for machine in 1..=4 {
        nodes.push(lab.join(machine).await);
    }
    for compression in BOTH {
        let mut streams = Vec::new();
        for node in &nodes[1..] {
            streams.push(lab.open(*node, compression).await);
        }
        for stream in &mut streams {
            stream.next().await.expect("the stream begins");
        }
        lab.must(Command::RenameNode {
            node: nodes[0],
            name: format!("{compression:?}").to_lowercase(),
        })
        .await;
        let mut frames = Vec::new();
        for stream in &mut streams {
            frames.push(stream.next().await.expect("a frame"));
        }
        let [first, rest @ ..] = &frames[..] else { panic!("no frames") };
        assert!(rest.iter().all(|frame| Arc::ptr_eq(frame, first)), "encoded once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_changed_has_a_frame_of_its_own() {
    let lab = Lab::new().await;
    let [one, two] = [lab.join(1).await, lab.join(2).await];
    let mut streams = [lab.follow(one).await, lab.follow(two).await];
    lab.must(Command::RenameNode { node: one, name: "web".to_owned() }).await;
    let mut told = Vec::new();
    for stream in &mut streams {
        let frame = stream.next().await.expect("a frame");
        told.push(parse(&json_of(&bytes_of(&frame), Compression::None)));
    }
    assert!(told[0].node.is_some() && told[0].peers_changed.is_empty());
    assert!(told[1].node.is_none() && told[1].peers_changed.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn compressed_frames_say_the_same_as_plain_ones() {
    let lab = Lab::new().await;
    let node = lab.join(1).await;
    let mut streams = Vec::new();
    for (machine, compression) in (2..).zip(BOTH) {
        let viewer = lab.join(machine).await;
        streams.push((lab.open(viewer, compression).await, compression));
    }
    let changes = [
        Command::RenameNode { node, name: "web".to_owned() },
        Command::TagNode { node, tags: vec!["tag:web".parse().expect("a tag")] },
        Command::DeleteNode { node },
    ];
    for (stream, _) in &mut streams {
        stream.next().await.expect("the stream begins");
    }
    for change in changes {
        lab.must(change).await;
        let mut said = Vec::new();
        for (stream, compression) in &mut streams {
            said.push(json_of(&bytes_of(&stream.next().await.expect("a frame")), *compression));
        }
        assert_eq!(said[0], said[1]);
    }
    let [plain, compressed] = BOTH
        .map(|compression| lab.streamer.once(mesh_model::NodeId(2), compression).expect("a map"));
    let [plain, compressed] = [bytes_of(&plain), bytes_of(&compressed)];
    assert_eq!(json_of(&plain, Compression::None), json_of(&compressed, Compression::Zstd));
    assert!(plain.len() > compressed.len());
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_response_is_all_frames_and_then_its_end() {
    let lab = Lab::new().await;
    let node = lab.join(1).await;
    let stream = lab.open(node, Compression::None).await;
    let mut body = pin!(stream.into_body());
    let mut first = BytesMut::new();
    while first.len() < 4
        || first.len() < 4 + u32::from_le_bytes(*first.first_chunk().expect("a length")) as usize
    {
        let Some(Ok(piece)) = body.next().await else { panic!("no whole message") };
        first.extend_from_slice(&piece);
    }
    assert!(parse(&json_of(&first.freeze(), Compression::None)).node.is_some());
    lab.stop.cancel();
    assert!(body.next().await.is_none());
}
