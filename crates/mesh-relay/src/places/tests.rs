use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn enter(places: &Places, remote: &str, max: usize) -> Place {
    places.enter(Some(remote.parse().expect("an address")), max)
}

fn is_lost(place: &Place) -> bool {
    place.lost().now_or_never().is_some()
}

#[test]
fn a_flood_from_one_address_shows_itself_the_door() {
    let places = Places::default();
    let honest = enter(&places, "192.0.2.1:1", 4);
    let mut flood: Vec<_> =
        (1..=9).map(|port| places.enter(Some(([203, 0, 113, 1], port).into()), 4)).collect();
    assert!(flood.drain(..6).all(|place| is_lost(&place)));
    let newcomer = enter(&places, "192.0.2.2:1", 4);
    assert!(is_lost(&flood[0]));
    assert!(![&honest, &newcomer, &flood[1], &flood[2]].into_iter().any(is_lost));
    assert_eq!(places.len(), 4);
}

#[test]
fn whoever_has_one_ipv6_address_has_its_network() {
    let places = Places::default();
    let held =
        ["[2001:db8::1]:1", "[2001:db8:0:1::1]:1", "[2001:db8::2]:1", "[::ffff:192.0.2.1]:1"]
            .map(|text| enter(&places, text, 4));
    let newcomer = enter(&places, "192.0.2.1:2", 4);
    assert_eq!(held.each_ref().map(is_lost), [true, false, false, false]);
    let another = places.enter(None, 4);
    assert_eq!(held.each_ref().map(is_lost), [false, false, false, true], "IPv4 in another form");
    drop((held, newcomer, another));
    assert_eq!(places.len(), 0);
}

#[test]
fn one_place_is_always_there() {
    let places = Places::default();
    let first = places.enter(None, 0);
    let second = places.enter(None, 0);
    assert!(is_lost(&first) && !is_lost(&second));
}

proptest! {
    /// Against a list of who came when.
    #[test]
    fn the_source_with_most_places_loses_its_oldest(
        steps in vec((0..4_u8, any::<bool>()), 0..200),
        max in 1..12_usize,
    ) {
        let places = Places::default();
        let mut list: Vec<(u8, Place)> = Vec::new();
        for (source, enters) in steps {
            if !enters {
                if let Some(at) = list.iter().position(|(of, _)| *of == source) {
                    list.remove(at);
                }
                continue;
            }
            let place = places.enter(Some(([192, 0, 2, source], 1).into()), max);
            if list.len() == max {
                let count = |source: u8| list.iter().filter(|(of, _)| *of == source).count();
                let most = list.iter().map(|(of, _)| count(*of)).max().unwrap_or(0);
                let loses = list.iter().position(|(of, _)| count(*of) == most).expect("the oldest");
                prop_assert!(is_lost(&list.remove(loses).1));
            }
            list.push((source, place));
            prop_assert!(!list.iter().any(|(_, place)| is_lost(place)));
            prop_assert_eq!(places.len(), list.len());
        }
    }
}
