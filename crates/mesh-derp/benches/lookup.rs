//! Nanoseconds that a relay takes to find out where a packet goes: a table of 5000 clients, of which each sender talks
//! to a few in turn. One sender alone, and two on two threads that talk to the same ones.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]

use std::env;
use std::hint::black_box;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use mesh_derp::{PeerPresent, Session, Table};
use mesh_keys::NodePublic;

const CLIENTS: u64 = 5000;

/// Stands for a destination that is not there.
const NOBODY: u64 = 0;

/// Lookups between two looks at the clock.
const LOOKUPS: u32 = 100_000;

/// How long each figure is measured, of which the best stretch counts.
const MEASURED: Duration = Duration::from_secs(2);

/// The same under `cargo test`, which only wants to know that it runs.
const MEASURED_IN_TEST: Duration = Duration::from_millis(20);

fn main() {
    let measured =
        if env::args().any(|argument| argument == "--bench") { MEASURED } else { MEASURED_IN_TEST };
    let table = Arc::new(Table::default());
    let clients: Vec<_> = (0..CLIENTS).map(|number| join(&table, number)).collect();
    println!("| destinations | 1 thread | 2 threads |");
    println!("|---|---|---|");
    for destinations in [1, 4, 16, 64] {
        let [one, two] = [1, 2].map(|threads| measure(&table, threads, destinations, measured));
        println!("| {destinations} | {one:.1} ns | {two:.1} ns |");
    }
    let [one, two] = [1, 2].map(|threads| measure(&table, threads, NOBODY, measured));
    println!("| nobody | {one:.1} ns | {two:.1} ns |");
    drop(clients);
}

fn join(table: &Arc<Table>, number: u64) -> Session {
    let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let peer = PeerPresent { key: key(number), addr, flags: PeerPresent::REGULAR };
    let session = Session::join(Arc::clone(table), peer, Instant::now(), || true);
    session.expect("everybody is admitted")
}

/// A key that looks like one, for tables that take hashes as they come.
fn key(number: u64) -> NodePublic {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (place as u64) << 32);
        *byte = mixed.to_be_bytes()[1];
    }
    NodePublic::from_bytes(bytes)
}

/// Nanoseconds per lookup on each of the threads, in its best stretch; of several threads the slowest's.
fn measure(table: &Arc<Table>, threads: u64, destinations: u64, measured: Duration) -> f64 {
    let start = Arc::new(Barrier::new(usize::try_from(threads).expect("a few")));
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            let (mut session, start) = (join(table, CLIENTS + thread), Arc::clone(&start));
            let keys: Vec<_> = match destinations {
                NOBODY => vec![key(2 * CLIENTS)],
                some => (0..some).map(|number| key(number * 7)).collect(),
            };
            thread::spawn(move || {
                start.wait();
                let (began, mut best) = (Instant::now(), f64::MAX);
                while began.elapsed() < measured {
                    best = best.min(stretch(&mut session, &keys));
                }
                best
            })
        })
        .collect();
    let best = running.into_iter().map(|thread| thread.join().expect("a sender"));
    best.fold(0.0, f64::max)
}

fn stretch(session: &mut Session, keys: &[NodePublic]) -> f64 {
    let began = Instant::now();
    let mut found = 0;
    for key in keys.iter().cycle().take(LOOKUPS as usize) {
        found += u32::from(session.reaches(black_box(key)));
    }
    assert!(found == LOOKUPS || found == 0, "{found}");
    began.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
}
