//! Whose an address is: exactly for the addresses of peers, by longest prefix for what lies behind them.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::table::PeerIndex;

/// Routes to peers.
///
/// A prefix that several peers claim belongs to the one that claimed it last; when that one gives it up, to the one before.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    addresses: HashMap<IpAddr, PeerIndex, RandomState>,
    v4: PrefixMap<Ipv4Net, PeerIndex>,
    v6: PrefixMap<Ipv6Net, PeerIndex>,
    /// Who claimed a prefix before the one that has it, the oldest first. Nearly always nobody did.
    older: HashMap<IpNet, Vec<PeerIndex>, RandomState>,
}

impl Routes {
    /// The peer to which an address is routed. An exit node's routes, which hold all addresses, are no answer.
    pub(crate) fn get(&self, address: IpAddr) -> Option<PeerIndex> {
        self.addresses.get(&address).copied().or_else(|| match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, index)| *index),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, index)| *index),
        })
    }

    pub(crate) fn claim(&mut self, prefix: IpNet, index: PeerIndex) {
        let prefix = prefix.trunc();
        let before = match prefix {
            _ if is_address(prefix) => self.addresses.insert(prefix.addr(), index),
            _ if prefix.prefix_len() == 0 => return,
            IpNet::V4(prefix) => self.v4.insert(prefix, index),
            IpNet::V6(prefix) => self.v6.insert(prefix, index),
        };
        if let Some(before) = before {
            self.older.entry(prefix).or_default().push(before);
        }
    }

    pub(crate) fn give_up(&mut self, prefix: IpNet, index: PeerIndex) {
        let prefix = prefix.trunc();
        let Some(mut older) = self.older.remove(&prefix) else {
            return self.forget(prefix, index);
        };
        if self.owner(prefix) == Some(index) {
            let before = older.pop().expect("invariant: the list is dropped when it is empty");
            self.forget(prefix, index);
            self.claim(prefix, before);
        } else {
            older.retain(|claim| *claim != index);
        }
        if !older.is_empty() {
            self.older.insert(prefix, older);
        }
    }

    /// Who has exactly this prefix.
    fn owner(&self, prefix: IpNet) -> Option<PeerIndex> {
        match prefix {
            _ if is_address(prefix) => self.addresses.get(&prefix.addr()).copied(),
            IpNet::V4(prefix) => self.v4.get(&prefix).copied(),
            IpNet::V6(prefix) => self.v6.get(&prefix).copied(),
        }
    }

    /// Takes a prefix that nobody else claims from whom has it.
    fn forget(&mut self, prefix: IpNet, index: PeerIndex) {
        if self.owner(prefix) != Some(index) {
            return;
        }
        match prefix {
            _ if is_address(prefix) => self.addresses.remove(&prefix.addr()),
            IpNet::V4(prefix) => self.v4.remove(&prefix),
            IpNet::V6(prefix) => self.v6.remove(&prefix),
        };
    }
}

fn is_address(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Prefixes that often hold one another.
    const PREFIXES: [&str; 5] =
        ["100.64.0.1/32", "100.64.0.0/24", "100.64.0.9/16", "fd00::1/128", "fd00::/64"];

    fn claims() -> impl Strategy<Value = (bool, usize, u32)> {
        (any::<bool>(), 0..PREFIXES.len(), 0..4_u32)
    }

    proptest! {
        /// Beside a list of all claims, from which the newest on the longest prefix is picked.
        #[test]
        fn newest_claim_on_the_longest_prefix_wins(events in proptest::collection::vec(claims(), 1..40)) {
            let (mut routes, mut list) = (Routes::default(), Vec::<(IpNet, PeerIndex)>::new());
            for (is_claim, prefix, index) in events {
                let prefix: IpNet = PREFIXES[prefix].parse().expect("a prefix");
                let claim = (prefix, PeerIndex::test(index));
                let held = list.contains(&claim);
                if is_claim && !held {
                    routes.claim(prefix, claim.1);
                    list.push(claim);
                } else if !is_claim && held {
                    routes.give_up(prefix, claim.1);
                    list.retain(|other| *other != claim);
                }
                for address in ["100.64.0.1", "100.64.0.2", "100.64.7.1", "fd00::1", "fd00::2"] {
                    let address: IpAddr = address.parse().expect("an address");
                    let holding = list.iter().filter(|(prefix, _)| prefix.contains(&address));
                    let best = holding.max_by_key(|(prefix, _)| prefix.prefix_len());
                    prop_assert_eq!(routes.get(address), best.map(|(_, index)| *index));
                }
            }
        }
    }
}
