//! A look at the cost of a tailnet of some size. Printed, not judged: machines differ, and debug builds are slow.

use std::time::Instant;

use mesh_model::{NodeId, PreauthKeyId, TailnetId, UserId};
use mesh_state::{Command, Loaded, NewPreauthKey, Registration, Settings, State};
use mesh_streamer::Compression;
use mesh_testkit::{at, context, disco_key, new_preauth_key, new_user, node_key, registration};

use crate::lab::{Lab, bytes_of, json_of, parse, ports};

const NODES: u32 = 2_000;
const VIEWERS: u32 = if cfg!(debug_assertions) { 40 } else { 200 };

/// A tailnet of nodes that have all connected once.
fn tailnet() -> Loaded {
    let mut draft = State::new(
        TailnetId(1),
        Loaded::default(),
        std::sync::Arc::default(),
        Settings::default(),
        at(0),
    )
    .draft();
    let mut apply = |command: Command| {
        draft.apply(&command, &context(at(0))).expect("the command is carried out");
    };
    apply(Command::CreateUser(new_user("alice")));
    let key = new_preauth_key("key1", UserId(1));
    apply(Command::CreatePreauthKey(NewPreauthKey { reusable: true, ..key }));
    for number in 1..=NODES {
        let (node, key) = (NodeId(number), u64::from(number));
        let preauth_key = Some(PreauthKeyId(1));
        apply(Command::Register(Box::new(Registration { preauth_key, ..registration(key, key) })));
        apply(Command::Connect { node, node_key: node_key(key), disco_key: disco_key(key) });
    }
    let tailnet = draft.finish().0.snapshot(at(0)).tailnet;
    Loaded { tailnet, ..Loaded::default() }
}

#[tokio::test(start_paused = true)]
async fn a_tailnet_of_some_size_is_served() {
    let start = Instant::now();
    let lab = Lab::with(tailnet());
    println!("{NODES} nodes made in {:?}", start.elapsed());

    let start = Instant::now();
    let (mut streams, mut bytes) = (Vec::new(), 0);
    for viewer in (1..=VIEWERS).map(NodeId) {
        let mut stream = lab.open(viewer, Compression::Zstd).await;
        bytes += bytes_of(&stream.next().await.expect("the stream begins")).len();
        streams.push(stream);
    }
    println!("{VIEWERS} full maps of {bytes} bytes in {:?}", start.elapsed());

    // The first change finds every stream at another epoch, the second finds them together.
    for (port, streams_are) in [(7, "apart"), (8, "together")] {
        lab.move_to(NodeId(NODES), port).await;
        let start = Instant::now();
        for stream in &mut streams {
            let frame = stream.next().await.expect("a frame");
            assert_eq!(ports(&parse(&json_of(&bytes_of(&frame), Compression::Zstd))), [port]);
        }
        println!("one change told to {VIEWERS} streams {streams_are} in {:?}", start.elapsed());
    }
}
