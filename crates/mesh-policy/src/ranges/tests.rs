use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(prefixes: &[&str]) -> IpRanges {
    prefixes.iter().map(|prefix| prefix.parse::<IpNet>().expect("a prefix")).collect()
}

fn texts(set: &IpRanges) -> Vec<String> {
    set.ranges().map(|range| range.to_string()).collect()
}

#[test]
fn a_range_reads_as_an_address_a_prefix_or_its_ends() {
    assert_eq!(texts(&set(&["10.0.0.1/32", "fd00::1/128"])), ["10.0.0.1", "fd00::1"]);
    assert_eq!(texts(&set(&["10.0.0.0/32", "10.0.0.1/32"])), ["10.0.0.0/31"]);
    assert_eq!(texts(&set(&["10.0.0.1/32", "10.0.0.2/32"])), ["10.0.0.1-10.0.0.2"]);
    assert_eq!(texts(&IpRanges::all()), ["0.0.0.0/0", "::/0"]);
    assert_eq!(texts(&set(&["10.1.2.3/8"])), ["10.0.0.0/8"]);
}

#[test]
fn the_internet_is_seven_ranges() {
    let mut internet = set(&["0.0.0.0/0", "2000::/3"]);
    internet.remove(&set(&[
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
    ]));
    assert_eq!(
        texts(&internet),
        [
            "0.0.0.0-9.255.255.255",
            "11.0.0.0-100.63.255.255",
            "100.128.0.0-169.253.255.255",
            "169.255.0.0-172.15.255.255",
            "172.32.0.0-192.167.255.255",
            "192.169.0.0-255.255.255.255",
            "2000::/3",
        ]
    );
}

/// Prefixes inside 0.0.0.0/24, so that a set of numbers can stand for them.
fn small() -> impl Strategy<Value = Vec<IpNet>> {
    let prefix = (0..=255_u32, 24..=32_u8).prop_map(|(address, length)| {
        IpNet::new(Ipv4Addr::from_bits(address).into(), length).expect("a length").trunc()
    });
    proptest::collection::vec(prefix, 0..6)
}

fn numbers(prefixes: &[IpNet]) -> BTreeSet<IpAddr> {
    prefixes
        .iter()
        .flat_map(|prefix| match prefix {
            IpNet::V4(prefix) => prefix.network().to_bits()..=prefix.broadcast().to_bits(),
            IpNet::V6(_) => unreachable!("only IPv4 is made"),
        })
        .map(|number| IpAddr::from(Ipv4Addr::from_bits(number)))
        .collect()
}

proptest! {
    #[test]
    fn sets_of_ranges_are_sets(one in small(), other in small(), probe in small()) {
        let (a, b): (IpRanges, IpRanges) =
            (one.iter().copied().collect(), other.iter().copied().collect());
        let (naive_a, naive_b) = (numbers(&one), numbers(&other));
        let mut union = a.clone();
        union.extend(&b);
        prop_assert_eq!(&union, &naive_a.union(&naive_b).copied().collect());
        let mut rest = a.clone();
        rest.remove(&b);
        prop_assert_eq!(&rest, &naive_a.difference(&naive_b).copied().collect());
        prop_assert_eq!(a.covers(&b), naive_b.is_subset(&naive_a));
        prop_assert_eq!(&a, &a.prefixes().collect());
        for prefix in probe {
            let inside = numbers(&[prefix]);
            prop_assert_eq!(a.overlaps(&prefix), !inside.is_disjoint(&naive_a));
            let first = prefix.network();
            prop_assert_eq!(a.contains(first), naive_a.contains(&first));
        }
    }
}
