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
    addresses: HashMap<IpAddr, Claims, RandomState>,
    v4: PrefixMap<Ipv4Net, Claims>,
    v6: PrefixMap<Ipv6Net, Claims>,
}

/// Who claims a prefix: the newest, and who claimed it before, the oldest first. Nearly always nobody did.
#[derive(Debug)]
struct Claims {
    newest: PeerIndex,
    #[expect(
        clippy::box_collection,
        reason = "there are millions of these, and a vector is three words"
    )]
    older: Option<Box<Vec<PeerIndex>>>,
}

impl Claims {
    fn new(index: PeerIndex) -> Self {
        Self { newest: index, older: None }
    }

    fn add(&mut self, index: PeerIndex) {
        self.older.get_or_insert_default().push(self.newest);
        self.newest = index;
    }

    /// Takes a claim back. Returns whether none is left.
    fn withdraw(&mut self, index: PeerIndex) -> bool {
        let Some(older) = &mut self.older else { return self.newest == index };
        if self.newest == index {
            self.newest = older.pop().expect("invariant: the list is dropped when it is empty");
        } else {
            older.retain(|claim| *claim != index);
        }
        self.older.take_if(|older| older.is_empty());
        false
    }
}

impl Routes {
    /// The peer to which an address is routed. An exit node's routes, which hold all addresses, are no answer.
    pub(crate) fn get(&self, address: IpAddr) -> Option<PeerIndex> {
        let claims = self.addresses.get(&address).or_else(|| match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, claims)| claims),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, claims)| claims),
        });
        claims.map(|claims| claims.newest)
    }

    pub(crate) fn claim(&mut self, prefix: IpNet, index: PeerIndex) {
        let prefix = prefix.trunc();
        let found = match prefix {
            _ if is_address(prefix) => self.addresses.get_mut(&prefix.addr()),
            _ if prefix.prefix_len() == 0 => return,
            IpNet::V4(prefix) => self.v4.get_mut(&prefix),
            IpNet::V6(prefix) => self.v6.get_mut(&prefix),
        };
        if let Some(claims) = found {
            return claims.add(index);
        }
        let claims = Claims::new(index);
        match prefix {
            _ if is_address(prefix) => self.addresses.insert(prefix.addr(), claims),
            IpNet::V4(prefix) => self.v4.insert(prefix, claims),
            IpNet::V6(prefix) => self.v6.insert(prefix, claims),
        };
    }

    pub(crate) fn give_up(&mut self, prefix: IpNet, index: PeerIndex) {
        let withdrawn = |claims: Option<&mut Claims>| claims.is_some_and(|it| it.withdraw(index));
        match prefix.trunc() {
            prefix if is_address(prefix) => {
                if withdrawn(self.addresses.get_mut(&prefix.addr())) {
                    self.addresses.remove(&prefix.addr());
                }
            }
            IpNet::V4(prefix) => {
                if withdrawn(self.v4.get_mut(&prefix)) {
                    self.v4.remove(&prefix);
                }
            }
            IpNet::V6(prefix) => {
                if withdrawn(self.v6.get_mut(&prefix)) {
                    self.v6.remove(&prefix);
                }
            }
        }
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
