//! Who comes in and says nothing, ten thousand times.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use mesh_relay::{PRE_LOGIN_MAX, Refusal, Upgrade};
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

use super::Scene;
use crate::client::{Client, node};

const HALF_OPEN: u32 = 10_000;

/// Opens a connection from an address and waits until the relay has it.
async fn open_from(scene: &Scene, remote: SocketAddr, bytes: usize) -> DuplexStream {
    let (ours, theirs) = duplex(bytes);
    let (relay, connections) = (scene.relay.clone(), &scene.relay.stats().connections);
    let before = connections.load(Ordering::Relaxed);
    tokio::spawn(async move {
        relay.serve_upgraded(theirs, Upgrade::Derp, Some(remote)).await;
    });
    while connections.load(Ordering::Relaxed) == before {
        tokio::task::yield_now().await;
    }
    ours
}

async fn newcomers_get_in_beside(half_open: impl Fn(u32) -> SocketAddr) {
    let mut scene = Scene::new().await;
    let mut silent = Vec::new();
    for number in 0..HALF_OPEN {
        silent.push(open_from(&scene, half_open(number), 64).await);
    }
    let displaced = u64::from(HALF_OPEN) - PRE_LOGIN_MAX as u64;
    scene.expect_refused(Refusal::Displaced, displaced).await;

    let start = Instant::now();
    for number in 100..120 {
        let io = open_from(&scene, ([192, 0, 2, 1], 1).into(), 4096).await;
        // Others come while it logs in.
        silent.push(open_from(&scene, half_open(HALF_OPEN + u32::from(number)), 64).await);
        Client::log_in(io, &node(number)).await.expect("login").expect_silence().await;
    }
    // With time paused: nobody waited for anybody's deadline.
    assert!(start.elapsed().is_zero());
    scene.talk().await;
}

#[tokio::test(start_paused = true)]
async fn newcomers_get_in_beside_ten_thousand_from_one_address() {
    newcomers_get_in_beside(|number| {
        ([203, 0, 113, 1], u16::try_from(number).expect("a port")).into()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn newcomers_get_in_beside_ten_thousand_from_as_many_addresses() {
    newcomers_get_in_beside(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        ([198, 18, high, low], 1).into()
    })
    .await;
}
