//! What TCP through two stacks costs: bytes through one connection, what loss does to it, and what connections hold.
//!
//! `cargo bench -p mesh-stack --bench transfer` measures CPU time of this thread, which is both ends; without `--bench`
//! (as a test) it runs through once, small.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_stack::{Config, Network, Outgoing, PacketBatch, Stack, TcpStream};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};

const SERVER: &str = "100.64.0.2:80";

/// What a program writes and reads at a time.
const CHUNK_BYTES: usize = 64 * 1024;

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let (megabytes, connections, stacks) = if is_measured { (2048, 1000, 200) } else { (2, 10, 2) };
    hold(stacks, connections);
    pass(megabytes);
    for (latency, lost_one_in) in [(1, 0), (1, 1000), (1, 100), (25, 0), (25, 1000), (25, 100)] {
        lose(megabytes.div_ceil(100), Duration::from_millis(latency), lost_one_in);
    }
}

/// Memory of stacks, and of connections without traffic after a first request.
fn hold(stacks: u64, connections: u64) {
    let before = resident_bytes();
    let held: Vec<_> = (0..stacks).map(|_| stack("100.64.0.1")).collect();
    println!("idle stack: {} bytes", resident_bytes().saturating_sub(before) / stacks);
    drop(held);
    runtime(false).block_on(async {
        let (client, server) = pair(Duration::ZERO, 0);
        for round in ["first", "again"] {
            let before = resident_bytes();
            let held = open(&client, &server, connections).await;
            let grown = resident_bytes().saturating_sub(before) / connections;
            println!("idle connection, both ends, {round}: {grown} bytes");
            drop(held);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
}

async fn open(client: &Stack, server: &Stack, connections: u64) -> Vec<[TcpStream; 2]> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let [mut here, mut there] = connect(client, server).await;
        let mut bytes = [1; 1000];
        here.write_all(&bytes).await.expect("written");
        there.read_exact(&mut bytes).await.expect("read");
        there.write_all(&bytes).await.expect("written");
        here.read_exact(&mut bytes).await.expect("read");
        held.push([here, there]);
    }
    held
}

/// CPU time of bytes through a connection.
fn pass(megabytes: u64) {
    runtime(false).block_on(async {
        let (client, server) = pair(Duration::ZERO, 0);
        transfer(&client, &server, 1).await;
        let begun_at = cpu_time();
        transfer(&client, &server, megabytes).await;
        let spent = cpu_time().saturating_sub(begun_at);
        let seconds = spent.as_secs_f64();
        let bits = f64::from(u32::try_from(megabytes).expect("few megabytes")) * 1.048_576 * 8e-3;
        println!(
            "{megabytes} MiB: {:.3} s per GB, {:.1} Gbit/s",
            seconds * 8.0 / bits,
            bits / seconds
        );
    });
}

/// How long bytes take over a bad line, in time that stands still while there is work.
fn lose(megabytes: u64, latency: Duration, lost_one_in: u64) {
    runtime(true).block_on(async {
        let (client, server) = pair(latency, lost_one_in);
        let begun_at = Instant::now();
        transfer(&client, &server, megabytes).await;
        let seconds = begun_at.elapsed().as_secs_f64();
        let bits = f64::from(u32::try_from(megabytes).expect("few megabytes")) * 8.389;
        println!(
            "{megabytes} MiB, {latency:?} one way, lost one in {lost_one_in}: {:.1} Mbit/s",
            bits / seconds
        );
    });
}

async fn transfer(client: &Stack, server: &Stack, megabytes: u64) {
    let [mut here, mut there] = connect(client, server).await;
    let total = megabytes << 20;
    let write = async {
        let chunk = vec![7; CHUNK_BYTES];
        let mut left = total;
        while left > 0 {
            here.write_all(&chunk).await.expect("written");
            left = left.saturating_sub(CHUNK_BYTES as u64);
        }
        here.shutdown().await.expect("shut down");
    };
    let read = async {
        let (mut chunk, mut received) = (vec![0; CHUNK_BYTES], 0);
        loop {
            match there.read(&mut chunk).await.expect("read") {
                0 => return received,
                length => received += length as u64,
            }
        }
    };
    let ((), received) = tokio::join!(write, read);
    assert_eq!(received, total);
}

async fn connect(client: &Stack, server: &Stack) -> [TcpStream; 2] {
    let address: SocketAddr = SERVER.parse().expect("an address");
    let mut listener = server.listen_tcp(Network::Tcp, None, address.port()).expect("it is free");
    let (here, there) = tokio::join!(client.connect_tcp(None, address), listener.accept());
    [here.expect("connected"), there.expect("accepted").0]
}

fn pair(latency: Duration, lost_one_in: u64) -> (Stack, Stack) {
    let (client, from_client) = stack("100.64.0.1");
    let (server, from_server) = stack("100.64.0.2");
    tokio::spawn(carry(from_client, server.clone(), latency, lost_one_in));
    tokio::spawn(carry(from_server, client.clone(), latency, lost_one_in));
    (client, server)
}

fn stack(address: &str) -> (Stack, Outgoing) {
    let addresses = vec![address.parse().expect("an address")];
    Stack::new(&Config { addresses, ..Config::default() }).expect("a stack")
}

fn carry(
    mut from: Outgoing,
    to: Stack,
    latency: Duration,
    lost_one_in: u64,
) -> impl Future<Output = ()> {
    let (mut batch, mut dice) = (PacketBatch::new(), 1_u64);
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut is_lost = move || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        lost_one_in != 0 && (dice >> 33).is_multiple_of(lost_one_in)
    };
    async move {
        loop {
            let next = under_way.front().map(|(at, _)| *at);
            tokio::select! {
                () = from.next_batch(&mut batch) => {
                    if latency.is_zero() {
                        to.receive(batch.packets());
                        continue;
                    }
                    let at = Instant::now() + latency;
                    let kept = batch.packets().filter(|_| !is_lost());
                    under_way.extend(kept.map(|packet| (at, packet.to_vec())));
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let count = under_way.partition_point(|(at, _)| *at <= Instant::now());
            to.receive(under_way.drain(..count).map(|(_, packet)| packet));
        }
    }
}

fn runtime(is_paused: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(is_paused).build().expect("a runtime")
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("a positive time");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Source: proc(5), the second number of `statm`, in pages.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}
