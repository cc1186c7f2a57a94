//! Sets of addresses as sorted ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// What both families count with.
trait Number: Copy + Ord {
    const MAX: Self;
    fn next(self) -> Self;
    fn previous(self) -> Self;
}

impl Number for u32 {
    const MAX: Self = Self::MAX;
    fn next(self) -> Self {
        self + 1
    }
    fn previous(self) -> Self {
        self - 1
    }
}

impl Number for u128 {
    const MAX: Self = Self::MAX;
    fn next(self) -> Self {
        self + 1
    }
    fn previous(self) -> Self {
        self - 1
    }
}

/// A set of addresses of both families.
///
/// Invariant: ranges of a family are sorted, and a gap of at least one address lies between two of them. So equal
/// sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct IpRanges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Addresses from the first to the last, both included and of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl IpRanges {
    /// Every address there is.
    pub fn all() -> Self {
        Self { v4: vec![(0, u32::MAX)], v6: vec![(0, u128::MAX)] }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => overlaps(&self.v4, address.to_bits(), address.to_bits()),
            IpAddr::V6(address) => overlaps(&self.v6, address.to_bits(), address.to_bits()),
        }
    }

    /// Whether it shares an address with a prefix.
    pub fn overlaps(&self, prefix: &IpNet) -> bool {
        match bounds(prefix) {
            Bounds::V4(first, last) => overlaps(&self.v4, first, last),
            Bounds::V6(first, last) => overlaps(&self.v6, first, last),
        }
    }

    /// Whether it shares an address with the other.
    pub fn intersects(&self, other: &Self) -> bool {
        let meets = |(first, last): &(u32, u32)| overlaps(&self.v4, *first, *last);
        let meets_v6 = |(first, last): &(u128, u128)| overlaps(&self.v6, *first, *last);
        other.v4.iter().any(meets) || other.v6.iter().any(meets_v6)
    }

    /// Whether every address of the other is in it.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |(first, last): &(u32, u32)| covers(&self.v4, *first, *last);
        let within_v6 = |(first, last): &(u128, u128)| covers(&self.v6, *first, *last);
        other.v4.iter().all(within) && other.v6.iter().all(within_v6)
    }

    /// Adds the addresses of the other.
    pub fn extend(&mut self, other: &Self) {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
        self.normalize();
    }

    /// All addresses of several sets.
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut union = Self::default();
        for set in sets {
            union.v4.extend_from_slice(&set.v4);
            union.v6.extend_from_slice(&set.v6);
        }
        union.normalize();
        union
    }

    /// Takes the addresses of the other out.
    pub fn remove(&mut self, other: &Self) {
        self.v4 = without(&self.v4, &other.v4);
        self.v6 = without(&self.v6, &other.v6);
    }

    /// The ranges in order, IPv4 first.
    pub fn ranges(&self) -> impl Iterator<Item = IpRange> {
        let v4 = self.v4.iter().map(|(first, last)| IpRange {
            first: Ipv4Addr::from_bits(*first).into(),
            last: Ipv4Addr::from_bits(*last).into(),
        });
        let v6 = self.v6.iter().map(|(first, last)| IpRange {
            first: Ipv6Addr::from_bits(*first).into(),
            last: Ipv6Addr::from_bits(*last).into(),
        });
        v4.chain(v6)
    }

    /// The smallest list of prefixes that make it up, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.ranges().flat_map(IpRange::prefixes)
    }

    fn normalize(&mut self) {
        join(&mut self.v4);
        join(&mut self.v6);
    }
}

impl From<IpNet> for IpRanges {
    fn from(prefix: IpNet) -> Self {
        [prefix].into_iter().collect()
    }
}

impl FromIterator<IpNet> for IpRanges {
    fn from_iter<T: IntoIterator<Item = IpNet>>(prefixes: T) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            match bounds(&prefix) {
                Bounds::V4(first, last) => set.v4.push((first, last)),
                Bounds::V6(first, last) => set.v6.push((first, last)),
            }
        }
        set.normalize();
        set
    }
}

impl FromIterator<IpAddr> for IpRanges {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        addresses.into_iter().map(IpNet::from).collect()
    }
}

impl IpRange {
    /// The smallest list of prefixes that make it up.
    pub fn prefixes(self) -> impl Iterator<Item = IpNet> {
        let (v4, v6) = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (Some(Ipv4Subnets::new(first, last, 0)), None),
            (IpAddr::V6(first), IpAddr::V6(last)) => (None, Some(Ipv6Subnets::new(first, last, 0))),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => (None, None),
        };
        v4.into_iter().flatten().map(IpNet::V4).chain(v6.into_iter().flatten().map(IpNet::V6))
    }
}

/// As packet filters write it: an address, else a CIDR if it is exactly one, else `first-last`.
impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        match exact_prefix(*self) {
            Some(prefix) => write!(f, "{prefix}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// The one prefix that is exactly this range, if there is one.
fn exact_prefix(range: IpRange) -> Option<IpNet> {
    match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let length = (first.to_bits() ^ last.to_bits()).leading_zeros();
            let prefix = Ipv4Net::new(first, u8::try_from(length).ok()?).ok()?;
            (prefix.network() == first && prefix.broadcast() == last).then_some(IpNet::V4(prefix))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let length = (first.to_bits() ^ last.to_bits()).leading_zeros();
            let prefix = Ipv6Net::new(first, u8::try_from(length).ok()?).ok()?;
            (prefix.network() == first && prefix.broadcast() == last).then_some(IpNet::V6(prefix))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

enum Bounds {
    V4(u32, u32),
    V6(u128, u128),
}

fn bounds(prefix: &IpNet) -> Bounds {
    match prefix {
        IpNet::V4(prefix) => Bounds::V4(prefix.network().to_bits(), prefix.broadcast().to_bits()),
        IpNet::V6(prefix) => Bounds::V6(prefix.network().to_bits(), prefix.broadcast().to_bits()),
    }
}

/// Sorts ranges and joins those that touch.
fn join<T: Number>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    let mut kept = 0;
    for index in 0..ranges.len() {
        let (first, last) = ranges[index];
        if kept > 0 && (ranges[kept - 1].1 == T::MAX || first <= ranges[kept - 1].1.next()) {
            ranges[kept - 1].1 = ranges[kept - 1].1.max(last);
        } else {
            ranges[kept] = (first, last);
            kept += 1;
        }
    }
    ranges.truncate(kept);
}

/// The index of the first range that ends at or after a number.
fn position<T: Number>(ranges: &[(T, T)], number: T) -> usize {
    ranges.partition_point(|(_, last)| *last < number)
}

fn overlaps<T: Number>(ranges: &[(T, T)], first: T, last: T) -> bool {
    ranges.get(position(ranges, first)).is_some_and(|range| range.0 <= last)
}

fn covers<T: Number>(ranges: &[(T, T)], first: T, last: T) -> bool {
    ranges.get(position(ranges, first)).is_some_and(|range| range.0 <= first && last <= range.1)
}

fn without<T: Number>(ranges: &[(T, T)], removed: &[(T, T)]) -> Vec<(T, T)> {
    let mut left = Vec::with_capacity(ranges.len());
    for (mut first, last) in ranges.iter().copied() {
        let mut is_used_up = false;
        for (start, end) in removed[position(removed, first)..].iter().copied() {
            if start > last {
                break;
            }
            if start > first {
                left.push((first, start.previous()));
            }
            if end >= last {
                is_used_up = true;
                break;
            }
            first = end.next();
        }
        if !is_used_up {
            left.push((first, last));
        }
    }
    left
}

#[cfg(test)]
mod tests;
