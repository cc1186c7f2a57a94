//! The laws of relays, over many seeds, with clients that send, stall, vanish, come back and talk nonsense at random.
//!
//! Each kind of packet from a connection to a key keeps its order, reaches that key alone, once, unchanged, or is dropped
//! and counted; no queue holds more than it may; a client that reads gets what waits for it, its pongs at once; who was sent
//! to hears when the sender is gone, and never of one who is there; and when all is quiet, nothing is left behind.
//!
//! Everything follows from a seed. A failing one goes to [`SEEDS`] before its cause is mended; `PROPTEST_CASES` says how many
//! are tried.

mod ledger;
mod link;
mod packet;
mod presence;
mod storm;
mod world;

use mesh_testkit::network::Dice;
use mesh_testkit::seeds;

use storm::Storm;
use world::World;

/// Seeds that failed once.
const SEEDS: &[u64] = &[];

/// How many seeds are tried by default.
const CASES: u64 = 1000;

#[test]
fn whatever_clients_do_packets_keep_their_order_and_all_ends_well() {
    seeds::check(CASES, SEEDS, |seed| {
        let mut world = World::new(seed);
        let mut storm = Storm::new(&mut world);
        for _ in 0..3 {
            storm.rage(&mut world);
            world.settle();
            world.check_settled();
        }
        world.dial();
        world.settle();
        world.greet();
        world.check_settled();
        for id in world.ids(|_| true) {
            world.end(id);
            world.settle();
            world.check_settled();
        }
    });
}

#[test]
fn who_was_sent_to_before_its_newer_connection_left_hears_that_the_sender_is_gone() {
    let mut world = World::with_relays(Dice::new(0), 1, false);
    let sender = world.join(0);
    world.join(1);
    world.send(sender, 1, false, 0);
    world.settle();
    let newer = world.join(1);
    world.send(sender, 1, false, 0);
    world.settle();
    world.end(newer);
    for key in 2..200 {
        world.join(key);
        world.send(sender, key, false, 0);
    }
    world.settle();
    world.end(sender);
    world.settle();
    world.check_settled();
}
