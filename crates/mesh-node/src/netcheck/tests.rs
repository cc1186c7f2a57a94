use mesh_wire::{DerpHomeParams, DerpNode, DerpRegion};

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn map(regions: &[u32]) -> DerpMap {
    let region = |id: &u32| {
        let nodes = vec![DerpNode { host_name: "relay.example".to_owned(), ..DerpNode::default() }];
        (DerpRegionId(*id), DerpRegion { nodes, ..DerpRegion::default() })
    };
    DerpMap { regions: Some(regions.iter().map(region).collect()), ..DerpMap::default() }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Asks a region, which answers after so many milliseconds.
fn measure(netcheck: &mut Netcheck, region: u32, milliseconds: u32, now: Instant) -> bool {
    let (transaction, server) = ([7; 12], address("192.0.2.9:3478"));
    netcheck.begin_round(now);
    netcheck.note_asked(transaction, DerpRegionId(region), server, now);
    let answered_at = now + MILLISECOND * milliseconds;
    netcheck.handle_answer(&transaction, address("198.51.100.1:41641"), server, answered_at)
}

#[test]
fn nearest_region_is_home_and_stays_until_another_is_clearly_nearer() {
    let (now, map) = (Instant::now(), map(&[1, 2, 3]));
    let mut netcheck = Netcheck::default();
    let mut home = |region, milliseconds| {
        assert!(measure(&mut netcheck, region, milliseconds, now), "news");
        netcheck.choose_home(&map, now)
    };
    assert_eq!(home(2, 30), Some(DerpRegionId(2)));
    assert_eq!(home(1, 25), Some(DerpRegionId(2)));
    assert_eq!(home(3, 10), Some(DerpRegionId(3)));
}

#[test]
fn scores_count_as_if_regions_were_nearer_or_farther_until_they_are_taken_back() {
    let (now, mut map) = (Instant::now(), map(&[1, 2]));
    let mut netcheck = Netcheck::default();
    measure(&mut netcheck, 1, 10, now);
    measure(&mut netcheck, 2, 40, now);
    let scores = |scores: &[(u32, f64)]| {
        let scores = scores.iter().map(|(id, score)| (DerpRegionId(*id), *score)).collect();
        Some(DerpHomeParams { region_score: Some(scores) })
    };
    map.home_params = scores(&[(2, 0.1), (1, -1.0)]);
    assert_eq!(netcheck.choose_home(&map, now), Some(DerpRegionId(2)));
    map.home_params = None;
    assert_eq!(netcheck.choose_home(&map, now), Some(DerpRegionId(2)));
    map.home_params = scores(&[]);
    assert_eq!(netcheck.choose_home(&map, now), Some(DerpRegionId(1)));
}

#[test]
fn without_any_answer_the_first_region_is_home_after_a_while() {
    let (now, map) = (Instant::now(), map(&[4, 5]));
    let mut netcheck = Netcheck::default();
    assert_eq!(netcheck.choose_home(&map, now), None);
    // No region has a server to ask.
    netcheck.begin_round(now);
    assert_eq!(netcheck.choose_home(&map, now), None);
    let settled = netcheck.settles_at().expect("a time");
    assert_eq!(netcheck.choose_home(&map, settled), Some(DerpRegionId(4)));
    assert_eq!(netcheck.settles_at(), None);
}

#[test]
fn without_any_region_nothing_is_waited_for() {
    let (now, none, mut netcheck) = (Instant::now(), map(&[]), Netcheck::default());
    netcheck.begin_round(now);
    let settled = netcheck.settles_at().expect("a time");
    assert_eq!(netcheck.choose_home(&none, settled), None);
    assert_eq!(netcheck.settles_at(), None);
    netcheck.begin_round(settled);
    assert_eq!(netcheck.settles_at(), None);
    assert_eq!(netcheck.choose_home(&map(&[6]), settled), Some(DerpRegionId(6)));
}

#[test]
fn a_home_that_is_gone_from_the_map_is_left() {
    let now = Instant::now();
    let mut netcheck = Netcheck::default();
    measure(&mut netcheck, 1, 5, now);
    measure(&mut netcheck, 2, 50, now);
    assert_eq!(netcheck.choose_home(&map(&[1, 2]), now), Some(DerpRegionId(1)));
    assert_eq!(netcheck.choose_home(&map(&[2]), now), Some(DerpRegionId(2)));
}

#[test]
fn answers_count_only_from_where_they_were_asked() {
    let now = Instant::now();
    let mut netcheck = Netcheck::default();
    let server = address("192.0.2.9:3478");
    netcheck.note_asked([1; 12], DerpRegionId(1), server, now);
    let seen_as = address("198.51.100.1:41641");
    assert!(!netcheck.handle_answer(&[2; 12], seen_as, server, now));
    assert!(!netcheck.handle_answer(&[1; 12], seen_as, address("192.0.2.8:3478"), now));
    assert_eq!(netcheck.seen_as().count(), 0);
}
