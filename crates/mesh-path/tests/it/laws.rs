//! The laws of paths, over many seeds. A failing seed goes to [`SEEDS`] before its cause is mended.
//!
//! `PROPTEST_CASES` says how many seeds are tried, as for all property tests.

use std::time::{Duration, Instant};

use mesh_wire::DerpRegionId;

use crate::world::{Arrival, World};
use mesh_testkit::network::{Filtering, Gateway, HostId, Mapping};
use mesh_testkit::seeds;

/// Seeds that failed once.
const SEEDS: &[u64] = &[2241];

/// How many seeds are tried by default.
const CASES: u64 = 200;

const FIRST: DerpRegionId = DerpRegionId(1);

const OPEN: Gateway =
    Gateway { mapping: Mapping::None, filtering: Filtering::Open, passes_udp: true };

/// The longest way through a relay, and back.
const RELAY_ROUND_TRIP: Duration = Duration::from_millis(500);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Tries a law with many seeds.
fn check(law: impl Fn(u64)) {
    seeds::check(CASES, SEEDS, law);
}

/// Two nodes behind some gateways, now and then at one site.
fn pair(world: &mut World, home: Option<DerpRegionId>) -> (HostId, HostId) {
    let (ours, theirs) =
        (Gateway::any(&mut world.network.dice), Gateway::any(&mut world.network.dice));
    let a = world.add_node(ours, home);
    let b = if world.network.dice.chance(10) {
        world.add_node_at(world.network.site_of(a), home)
    } else {
        world.add_node(theirs, home)
    };
    (a, b)
}

/// A world with one relay and a pair, whose first sends data that the other answers, or not.
fn world_with_pair(seed: u64) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    world.network.regions.insert(FIRST);
    let (a, b) = pair(&mut world, Some(FIRST));
    world.run_for(secs(1));
    (world, a, b)
}

fn are_direct(world: &World, a: HostId, b: HostId) -> bool {
    world.is_direct(a, b) && world.is_direct(b, a)
}

fn both_heard(world: &World, a: HostId, b: HostId) -> bool {
    let heard = |from, to| world.arrivals.iter().any(|it| (it.from, it.to) == (from, to));
    heard(a, b) && heard(b, a)
}

#[test]
fn direct_path_is_found_within_5_s_if_gateways_allow_one() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        // Who only listens needs no path of its own, but must help.
        let wants_reply = world.network.dice.chance(70);
        world.start(a, b, wants_reply);
        let can = world.network.can_be_direct(a, b);
        let is_it =
            |world: &World| world.is_direct(a, b) && (world.is_direct(b, a) || !wants_reply);
        let is = world.run_until(secs(5), is_it);
        assert_eq!(is, can, "{:?}", (world.network.gateway_of(a), world.network.gateway_of(b)));
        world.run_for(secs(120));
        assert_eq!(is_it(&world), can, "it lasts");
    });
}

#[test]
fn data_arrives_from_the_first_packet_on_if_there_is_a_relay() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        world.start(a, b, true);
        world.network.loss_percent = world.network.dice.below(20);
        let arrived = world.run_until(RELAY_ROUND_TRIP, |world| both_heard(world, a, b));
        assert!(arrived, "the first packet goes by relay");
    });
}

#[test]
fn nodes_without_a_relay_find_each_other_if_both_send() {
    check(|seed| {
        let mut world = World::new(seed);
        let (a, b) = pair(&mut world, None);
        world.run_for(secs(1));
        world.start(a, b, false);
        world.start(b, a, false);
        // Those behind NATs are known by the addresses that STUN told last.
        let found =
            world.run_until(secs(13), |world| are_direct(world, a, b) && both_heard(world, a, b));
        assert_eq!(found, world.network.can_be_direct(a, b));
    });
}

#[test]
fn direct_path_is_found_in_spite_of_loss() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        world.network.loss_percent = 20;
        world.start(a, b, true);
        let can = world.network.can_be_direct(a, b);
        assert_eq!(world.run_until(secs(60), |world| are_direct(world, a, b)), can);
        let begin = world.network.now;
        world.run_for(secs(60));
        check_gaps(&world, a, b, begin, secs(8));
    });
}

/// No span without data from one node to another is longer than this.
#[track_caller]
fn check_gaps(world: &World, from: HostId, to: HostId, begin: Instant, longest: Duration) {
    let is_it = |it: &&Arrival| (it.from, it.to) == (from, to) && it.at >= begin;
    let mut last = begin;
    for arrival in world.arrivals.iter().filter(is_it) {
        assert!(arrival.at - last <= longest, "{:?} without data", arrival.at - last);
        last = arrival.at;
    }
    let gap = world.network.now - last;
    assert!(gap <= longest, "{gap:?} without data at the end");
}

#[test]
fn dead_path_is_left_for_the_relay_within_7_s_and_taken_up_again() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        let (site_a, site_b) = (world.network.site_of(a), world.network.site_of(b));
        world.start(a, b, true);
        world.run_until(secs(5), |world| are_direct(world, a, b));
        let can = world.network.can_be_direct(a, b);
        let wait = world.network.dice.ms(0, 100_000);
        world.run_for(wait);
        let cuts = [vec![(site_a, site_b)], vec![(site_b, site_a)]];
        let both = cuts.concat();
        let cut = world.network.dice.pick(&[&cuts[0], &cuts[1], &both]);
        world.network.cuts.extend(cut);
        let begin = world.network.now;
        world.run_for(secs(60));
        for (from, to) in [(a, b), (b, a)] {
            check_gaps(&world, from, to, begin, secs(7) + RELAY_ROUND_TRIP);
        }
        if site_a != site_b {
            assert!(!world.is_direct(a, b) && !world.is_direct(b, a), "pongs need both ways");
        }
        world.network.cuts.clear();
        assert_eq!(world.run_until(secs(7), |world| are_direct(world, a, b)), can);
    });
}

#[test]
fn idle_session_ends_in_silence() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        world.network.loss_percent = world.network.dice.pick(&[0, 0, 20]);
        world.start(a, b, true);
        let wait = world.network.dice.ms(0, 100_000);
        world.run_for(wait);
        world.flows.clear();
        let end = world.network.now;
        world.run_for(secs(49) + RELAY_ROUND_TRIP);
        assert!(!world.is_any_timer_set(), "nothing to wait for");
        assert!(world.sent_at - end <= secs(45) + RELAY_ROUND_TRIP * 2, "45 s after the last data");
        world.run_for(secs(3_600));
        assert!(world.network.next_at().is_none(), "nothing under way");
        world.start(a, b, true);
        let can = world.network.can_be_direct(a, b) && world.network.loss_percent == 0;
        if can {
            assert!(world.run_until(secs(5), |world| are_direct(world, a, b)), "and begins again");
        }
    });
}

#[test]
fn node_that_roams_is_reached_again_within_3_s() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        world.start(a, b, true);
        let wait = world.network.dice.ms(500, 70_000);
        world.run_for(wait);
        let elsewhere = Gateway::any(&mut world.network.dice);
        let site = world.network.add_site(elsewhere);
        let told_after = world.network.dice.ms(0, 20_000);
        let who = world.network.dice.pick(&[a, b]);
        world.roam(who, site, told_after);
        let begin = world.network.now;
        let can = world.network.can_be_direct(a, b);
        let found = world.run_until(secs(5), |world| are_direct(world, a, b));
        assert_eq!(found, can, "{:?}", (world.network.gateway_of(a), world.network.gateway_of(b)));
        world.run_for(secs(30));
        for (from, to) in [(a, b), (b, a)] {
            check_gaps(&world, from, to, begin, secs(3));
        }
    });
}

#[test]
fn peer_that_changes_its_home_is_reached_where_it_was_heard() {
    check(|seed| {
        let mut world = World::new(seed);
        let blocked = Gateway { passes_udp: false, ..OPEN };
        world.network.regions.extend([1, 2, 3].map(DerpRegionId));
        let a = world.add_node(blocked, Some(DerpRegionId(3)));
        let b = world.add_node(OPEN, Some(FIRST));
        world.start(a, b, false);
        world.start(b, a, false);
        let wait = world.network.dice.ms(500, 70_000);
        world.run_for(wait);
        let told_after = world.network.dice.ms(0, 20_000);
        world.change_home(b, DerpRegionId(2), told_after);
        let begin = world.network.now;
        world.run_for(secs(30));
        check_gaps(&world, a, b, begin, RELAY_ROUND_TRIP * 2);
    });
}

#[test]
fn relay_may_die_and_come_back() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        world.start(a, b, true);
        world.run_for(secs(10));
        let can = world.network.can_be_direct(a, b);
        world.network.regions.clear();
        let begin = world.network.now;
        world.run_for(secs(90));
        if can {
            check_gaps(&world, a, b, begin, secs(1));
        }
        world.network.regions.insert(FIRST);
        let begin = world.network.now;
        world.run_for(secs(5));
        check_gaps(&world, a, b, begin, RELAY_ROUND_TRIP);
    });
}

/// One thing that goes wrong, or right again, for one of some nodes.
fn disturb(world: &mut World, nodes: &[HostId]) {
    let (a, b) = (world.network.dice.pick(nodes), world.network.dice.pick(nodes));
    let (site_a, site_b) = (world.network.site_of(a), world.network.site_of(b));
    match world.network.dice.below(8) {
        0 => drop(world.network.cuts.insert((site_a, site_b))),
        1 => world.network.cuts.clear(),
        2 => world.network.loss_percent = world.network.dice.below(60),
        3 => drop(world.network.regions.remove(&FIRST)),
        4 => drop(world.network.regions.insert(FIRST)),
        5 => world.network.set_offline(site_a, true),
        6 => world.network.set_offline(site_a, false),
        _ => {
            let elsewhere = Gateway::any(&mut world.network.dice);
            let site = world.network.add_site(elsewhere);
            let told_after = world.network.dice.ms(0, 20_000);
            world.roam(a, site, told_after);
        }
    }
}

#[test]
fn after_any_storm_three_nodes_find_their_best_ways() {
    check(|seed| {
        let (mut world, a, b) = world_with_pair(seed);
        let other = Gateway::any(&mut world.network.dice);
        let c = world.add_node(other, Some(FIRST));
        let nodes = [a, b, c];
        for (from, to) in [(a, b), (b, c), (c, a)] {
            world.start(from, to, true);
        }
        for _ in 0..20 {
            disturb(&mut world, &nodes);
            let wait = world.network.dice.ms(0, 12_000);
            world.run_for(wait);
        }
        world.network.cuts.clear();
        world.network.loss_percent = 0;
        world.network.regions.insert(FIRST);
        for node in nodes {
            world.network.set_offline(world.network.site_of(node), false);
        }
        world.run_for(secs(7));
        let begin = world.network.now;
        world.run_for(secs(20));
        for (from, to) in [(a, b), (b, c), (c, a)] {
            let gateways = (world.network.gateway_of(from), world.network.gateway_of(to));
            let is = are_direct(&world, from, to);
            assert_eq!(is, world.network.can_be_direct(from, to), "{gateways:?}");
            check_gaps(&world, from, to, begin, secs(1));
            check_gaps(&world, to, from, begin, secs(1));
        }
        world.flows.clear();
        world.run_for(secs(60));
        assert!(!world.is_any_timer_set(), "silence in the end");
    });
}
