//! What it costs a node to hear of peers, in tailnets of growing size: a first map, then pairs of messages that add and
//! remove one peer.
//!
//! `cargo bench -p mesh-peers --bench deltas` measures CPU time of this thread; without `--bench` (as a test) it runs
//! through once, small. Messages are JSON as they come out of the decompressor.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{DiscoPublic, NodePublic};
use mesh_peers::PeerTable;
use mesh_wire::{CapabilityVersion, DerpRegionId, Hostinfo, MapResponse, Node, NodeId, UserId};
use rustix::time::{ClockId, clock_gettime};

/// Peers of a first map that are read at a time.
const BATCH: u32 = 256;

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let (sizes, pairs): (&[u32], u32) =
        if is_measured { (&[10_000, 50_000, 100_000, 250_000], 2_000) } else { (&[100], 10) };
    println!(
        "| peers | first map: read | applied | resident per peer | add and remove | of it read |"
    );
    println!("|---|---|---|---|---|---|");
    for size in sizes {
        measure(*size, pairs);
    }
}

fn measure(size: u32, pairs: u32) {
    let before = resident_bytes();
    let mut table = PeerTable::new();
    let (mut read, mut applied) = (Duration::ZERO, Duration::ZERO);
    for first in (1..=size).step_by(BATCH as usize) {
        let last = size.min(first + BATCH - 1);
        let peers_changed = (first..=last).map(node).collect();
        let batch = MapResponse { peers_changed, ..MapResponse::default() };
        let json = serde_json::to_vec(&batch).expect("a message is JSON");
        let (reading, mut message) = timed(|| parse(&json));
        let (applying, ()) = timed(|| apply(&mut table, &mut message));
        read += reading;
        applied += applying;
    }
    let per_peer = resident_bytes().saturating_sub(before) / u64::from(size);
    let [add, remove] = pair(size + 1);
    let mut reading = Duration::ZERO;
    let (whole, ()) = timed(|| {
        for _ in 0..pairs {
            for json in [&add, &remove] {
                let (read, mut message) = timed(|| parse(json));
                reading += read;
                apply(&mut table, &mut message);
            }
        }
    });
    println!(
        "| {size} | {read:.0?} | {applied:.0?} | {per_peer} bytes | {:.2?} | {:.2?} |",
        whole / pairs,
        reading / pairs
    );
}

fn parse(json: &[u8]) -> MapResponse {
    serde_json::from_slice(json).expect("a message")
}

fn apply(table: &mut PeerTable, message: &mut MapResponse) {
    let mut events = Vec::new();
    table.apply(message, Timestamp::UNIX_EPOCH, &mut events);
    assert!(!events.is_empty());
}

/// Two messages: one that adds a peer, one that removes it.
fn pair(number: u32) -> [Vec<u8>; 2] {
    let add = MapResponse { peers_changed: vec![node(number)], ..MapResponse::default() };
    let removed = vec![NodeId(u64::from(number))];
    let remove = MapResponse { peers_removed: removed, ..MapResponse::default() };
    [add, remove].map(|message| serde_json::to_vec(&message).expect("a message is JSON"))
}

fn node(number: u32) -> Node {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    let [_, a, b, c] = number.to_be_bytes();
    let v4 = IpNet::from(std::net::IpAddr::from([100, 64 + a, b, c]));
    let mut v6 = [0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    v6[12..].copy_from_slice(&number.to_be_bytes());
    let addresses = vec![v4, IpNet::from(std::net::IpAddr::from(v6))];
    Node {
        id: NodeId(u64::from(number)),
        stable_id: format!("n{number:x}CNTRL"),
        name: format!("peer-{number}.tail-scale.example."),
        user: UserId(u64::from(number % 1000) + 1),
        key: NodePublic::from_bytes(key),
        disco_key: DiscoPublic::from_bytes(key),
        allowed_ips: Some(addresses.clone()),
        addresses,
        endpoints: vec![([192, 0, 2, c], 41641).into(), ([10, a, b, c], 41641).into()],
        home_derp: DerpRegionId(number % 20 + 1),
        hostinfo: Some(
            Hostinfo {
                os: "linux".to_owned(),
                hostname: format!("peer-{number}"),
                ..Hostinfo::default()
            }
            .into(),
        ),
        created: Some(Timestamp::UNIX_EPOCH),
        cap: CapabilityVersion::CURRENT,
        online: Some(true),
        machine_authorized: true,
        ..Node::default()
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = processor_time();
    let done = work();
    (processor_time().saturating_sub(start), done)
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("CPU time is positive")
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
