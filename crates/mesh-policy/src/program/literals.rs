//! What selects nodes by their addresses.

use foldhash::HashMap;
use ipnet::IpNet;

use super::Atom;

/// Selectors by address.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    by_prefix: HashMap<IpNet, Vec<Atom>>,
    /// The same, sorted by network: whatever lies inside a prefix stands together.
    sorted: Vec<(IpNet, Atom)>,
    /// Lengths in use.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

impl Literals {
    pub(super) fn new(literals: impl Iterator<Item = (Atom, Vec<IpNet>)>) -> Self {
        let mut index = Self::default();
        for (atom, prefixes) in literals {
            for prefix in prefixes {
                index.by_prefix.entry(prefix).or_default().push(atom);
                index.sorted.push((prefix, atom));
            }
        }
        index.sorted.sort_unstable();
        for prefix in index.by_prefix.keys() {
            match prefix {
                IpNet::V4(prefix) => index.lengths_v4.push(prefix.prefix_len()),
                IpNet::V6(prefix) => index.lengths_v6.push(prefix.prefix_len()),
            }
        }
        for lengths in [&mut index.lengths_v4, &mut index.lengths_v6] {
            lengths.sort_unstable();
            lengths.dedup();
        }
        index
    }

    /// Adds every literal that shares an address with a prefix.
    pub(crate) fn add_overlapping(&self, prefix: IpNet, atoms: &mut Vec<Atom>) {
        let lengths = if prefix.addr().is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        for length in lengths.iter().take_while(|length| **length < prefix.prefix_len()) {
            let wider = IpNet::new(prefix.addr(), *length)
                .expect("invariant: shorter than a valid length")
                .trunc();
            atoms.extend(self.by_prefix.get(&wider).into_iter().flatten());
        }
        let prefix = prefix.trunc();
        let start = self.sorted.partition_point(|(known, _)| known.network() < prefix.network());
        let inside = |(known, _): &&(IpNet, Atom)| prefix.contains(&known.network());
        let narrower = self.sorted[start..].iter().take_while(inside);
        atoms.extend(
            narrower
                .filter(|(known, _)| known.prefix_len() >= prefix.prefix_len())
                .map(|(_, atom)| *atom),
        );
    }
}
