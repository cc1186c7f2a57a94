//! Sets of addresses, and the text forms in which rules write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::rule::EntryError;

/// Addresses from one to another, both included, of one family.
///
/// `IpAddr` orders all of IPv4 before all of IPv6, so that no range of one family contains an address of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    const ALL_V4: Self =
        Self { first: IpAddr::V4(Ipv4Addr::UNSPECIFIED), last: IpAddr::V4(Ipv4Addr::BROADCAST) };
    const ALL_V6: Self = Self {
        first: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    };

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

/// Reads an address, a prefix, an inclusive range `a-b` or `*`, and adds what it names to `ranges`.
///
/// Source: tailscale `wgengine/filter/tailcfg.go`, `parseIPSet`.
pub(crate) fn parse_addresses(
    text: &str,
    ranges: &mut Vec<AddressRange>,
) -> Result<(), EntryError> {
    if text == "*" {
        ranges.extend([AddressRange::ALL_V4, AddressRange::ALL_V6]);
        return Ok(());
    }
    ranges.push(if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| EntryError::Address)?;
        if net != net.trunc() {
            return Err(EntryError::HostBits);
        }
        net.into()
    } else if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (parse_address(first)?, parse_address(last)?);
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(EntryError::Range);
        }
        AddressRange { first, last }
    } else {
        let address = parse_address(text)?;
        AddressRange { first: address, last: address }
    });
    Ok(())
}

fn parse_address(text: &str) -> Result<IpAddr, EntryError> {
    text.parse().map_err(|_| EntryError::Address)
}

/// A set of addresses that is quick to ask.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressSet {
    /// In order; none overlaps another.
    ranges: Box<[AddressRange]>,
}

impl AddressSet {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= address);
        after > 0 && address <= self.ranges[after - 1].last
    }

    pub(crate) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }
}

impl FromIterator<AddressRange> for AddressSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let overlaps = next.first <= kept.last;
            if overlaps {
                kept.last = kept.last.max(next.last);
            }
            overlaps
        });
        Self { ranges: ranges.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, EntryError>) {
        let mut ranges = Vec::new();
        let parsed = parse_addresses(text, &mut ranges).map(|()| {
            let shown = ranges.iter().map(|range| format!("{}-{}", range.first, range.last));
            shown.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(parsed, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn entries_name_addresses_prefixes_ranges_or_everything() {
        check("10.0.0.1", Ok("10.0.0.1-10.0.0.1"));
        check("fd7a::1", Ok("fd7a::1-fd7a::1"));
        check("10.0.0.0/30", Ok("10.0.0.0-10.0.0.3"));
        check("fd7a::/126", Ok("fd7a::-fd7a::3"));
        check("10.0.0.1-10.0.1.2", Ok("10.0.0.1-10.0.1.2"));
        check("fd7a::1-fd7a::1", Ok("fd7a::1-fd7a::1"));
        check("*", Ok("0.0.0.0-255.255.255.255 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    }

    #[test]
    fn other_entries_are_refused() {
        for text in
            ["", "host", "10.0.0.1/33", "10.0.0/24", "a-b", "10.0.0.1-", "1.2.3.4-5-6", "**"]
        {
            check(text, Err(EntryError::Address));
        }
        check("10.0.0.1/24", Err(EntryError::HostBits));
        check("10.0.0.2-10.0.0.1", Err(EntryError::Range));
        check("10.0.0.1-fd7a::1", Err(EntryError::Range));
    }

    /// Few addresses of both families, so that ranges meet often.
    fn address(is_v4: bool, last: u8) -> IpAddr {
        if is_v4 { [10, 0, 0, last].into() } else { Ipv6Addr::from_bits(last.into()).into() }
    }

    fn range() -> impl Strategy<Value = AddressRange> {
        (any::<bool>(), 0..16_u8, 0..16_u8).prop_map(|(is_v4, a, b)| AddressRange {
            first: address(is_v4, a.min(b)),
            last: address(is_v4, a.max(b)),
        })
    }

    proptest! {
        #[test]
        fn a_set_contains_what_any_of_its_ranges_contains(
            ranges in prop::collection::vec(range(), 0..8),
            (is_v4, last) in (any::<bool>(), 0..16_u8),
        ) {
            let address = address(is_v4, last);
            let set: AddressSet = ranges.iter().copied().collect();
            let naive = ranges.iter().any(|range| range.contains(address));
            prop_assert_eq!(set.contains(address), naive);
        }
    }
}
