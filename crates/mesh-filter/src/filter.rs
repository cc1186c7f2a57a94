//! The filter: rules in named chunks, and the verdict on each packet that a peer sends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use mesh_wire::{CapMap, FilterRule};
use thiserror::Error;

use crate::address::AddressSet;
use crate::flows::Flows;
use crate::packet::Packet;
use crate::recent::Recent;
use crate::rule::{BadEntries, BadEntry, Rule, Wanted};

/// Sources whose rules are kept at hand; the half of them that was used last stays. Looking up the rules of another
/// source asks every rule once. Kept are 16 bytes for each rule that has the source.
const SOURCES_MAX: usize = 2048;

/// The one link-local address that packets may go to: where clouds answer for name service and metadata, which a
/// subnet router may offer.
///
/// Source: tailscale `wgengine/filter/filter.go`, `gcpDNSAddr`.
const CLOUD_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The packet filter of a node, by chunk.
///
/// Chunks have no order, and one that is set, changed or removed leaves the work done for all others as it is.
/// Without chunks nothing can be opened; answers still come in.
///
/// What is looked up for a source is kept, so [`Filter::check`] takes the filter by `&mut`. Node capabilities are
/// asked for each time, for they change without the filter.
#[derive(Debug)]
pub struct Filter {
    locals: AddressSet,
    chunks: BTreeMap<String, Chunk>,
    candidates: Recent<IpAddr, Box<[Candidate]>>,
}

type Chunk = Box<[Arc<Rule>]>;

/// A rule that may let packets of a source in.
#[derive(Debug)]
struct Candidate {
    rule: Arc<Rule>,
    /// Whether the rule has the source by its address; otherwise a node capability must tell.
    is_by_address: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It comes in.
    Accept,
    /// It goes no further.
    Drop(Reason),
}

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    /// It is for a group of nodes.
    #[error("for a multicast address")]
    Multicast,
    /// It is for a link-local address, and a tailnet is no link.
    #[error("for a link-local address")]
    LinkLocal,
    /// It is for no address of the node and for no route that the node serves.
    #[error("not for this node")]
    NotLocal,
    /// No rule lets it in, and it answers nothing.
    #[error("no rule lets it in")]
    NoRule,
}

impl Filter {
    /// A filter without rules, for a node with the given addresses and served routes.
    pub fn new(locals: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            locals: to_set(locals),
            chunks: BTreeMap::new(),
            candidates: Recent::new(SOURCES_MAX / 2),
        }
    }

    /// Replaces the node's addresses and the routes that it serves.
    ///
    /// An exit node says here what it lets out, and leaves out its own networks.
    pub fn set_locals(&mut self, locals: impl IntoIterator<Item = IpNet>) {
        self.locals = to_set(locals);
    }

    /// Whether an address is the node's, or of a route that it serves.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.locals.contains(address)
    }

    /// Puts a chunk in place of the one of that name, if any.
    ///
    /// Returns the entries that say nothing, at most [`BAD_ENTRIES_MAX`](crate::BAD_ENTRIES_MAX): they are skipped,
    /// as stock clients do, and the rules they stand in hold without them.
    ///
    /// Source: tailscale `wgengine/filter/tailcfg.go`, `MatchesFromFilterRules`.
    pub fn set(&mut self, name: &str, rules: &[FilterRule]) -> Vec<BadEntry> {
        let mut bad = BadEntries::default();
        let rules = rules.iter().enumerate();
        let chunk: Chunk =
            rules.map(|(at, rule)| Arc::new(Rule::compile(rule, at, &mut bad))).collect();
        self.forget_candidates(&chunk);
        if let Some(before) = self.chunks.insert(name.to_owned(), chunk) {
            self.forget_candidates(&before);
        }
        bad.told
    }

    /// Removes a chunk, if it is there.
    pub fn remove(&mut self, name: &str) {
        if let Some(before) = self.chunks.remove(name) {
            self.forget_candidates(&before);
        }
    }

    /// Removes all chunks.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.candidates.retain(|_| false);
    }

    /// Judges a packet that a peer sent.
    ///
    /// `has_capability` says whether the node with an address has a node capability; it is asked only where rules
    /// name one.
    ///
    /// Without its rule nothing is opened any more, but what runs goes on: TCP until it ends, UDP and SCTP until the
    /// flow was idle for [`FLOW_IDLE`](crate::FLOW_IDLE). Whether something that runs would still be let in, the
    /// verdict on its first packet tells, with empty flows.
    ///
    /// Source: tailscale `wgengine/filter/filter.go`, `RunIn`.
    pub fn check(
        &mut self,
        packet: &Packet,
        flows: &mut Flows,
        has_capability: impl Fn(IpAddr, &str) -> bool,
        now: Instant,
    ) -> Verdict {
        self.judge(packet, flows, now, |filter, wanted| {
            filter.opens(wanted, packet, has_capability)
        })
    }

    /// Judges a packet that a jailed peer sent: whatever the rules say, only answers come in.
    ///
    /// Source: tailscale `tailcfg.Node.IsJailed`, `net/tstun/wrap.go`.
    pub fn check_jailed(&mut self, packet: &Packet, flows: &mut Flows, now: Instant) -> Verdict {
        self.judge(packet, flows, now, |_, _| false)
    }

    fn judge(
        &mut self,
        packet: &Packet,
        flows: &mut Flows,
        now: Instant,
        opens: impl FnOnce(&mut Self, Wanted) -> bool,
    ) -> Verdict {
        if let Err(reason) = self.check_destination(packet.destination.ip()) {
            return Verdict::Drop(reason);
        }
        let is_accepted =
            Wanted::by(packet).is_none_or(|wanted| flows.admit(packet, now) || opens(self, wanted));
        if is_accepted { Verdict::Accept } else { Verdict::Drop(Reason::NoRule) }
    }

    /// The application capabilities that a source has towards a destination, which is one of the node's addresses.
    ///
    /// Values that several rules give are all there, in the order of chunks and rules; a capability without values is
    /// there with none. Asks every rule that grants any.
    ///
    /// Source: tailscale `wgengine/filter/filter.go`, `CapsWithValues`.
    pub fn capabilities(
        &self,
        source: IpAddr,
        destination: IpAddr,
        has_capability: impl Fn(IpAddr, &str) -> bool,
    ) -> CapMap {
        let mut granted = CapMap::new();
        for rule in self.chunks.values().flatten().filter(|rule| rule.has_grants()) {
            if rule.sources.contains(source) || rule.admits_capability_of(source, &has_capability) {
                rule.grant(destination, &mut granted);
            }
        }
        granted
    }

    fn check_destination(&self, address: IpAddr) -> Result<(), Reason> {
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local() && address != CLOUD_METADATA,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if address.is_multicast() {
            Err(Reason::Multicast)
        } else if is_link_local {
            Err(Reason::LinkLocal)
        } else if !self.is_local(address) {
            Err(Reason::NotLocal)
        } else {
            Ok(())
        }
    }

    /// Whether a rule opens what the packet wants.
    fn opens(
        &mut self,
        wanted: Wanted,
        packet: &Packet,
        has_capability: impl Fn(IpAddr, &str) -> bool,
    ) -> bool {
        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        let candidates = self
            .candidates
            .get_or_insert_with(source, || find_candidates(self.chunks.values(), source));
        candidates.iter().any(|Candidate { rule, is_by_address }| {
            rule.opens(wanted, destination)
                && (*is_by_address || rule.admits_capability_of(source, &has_capability))
        })
    }

    /// Forgets the candidates of sources that rules have, for they come or go.
    fn forget_candidates(&mut self, rules: &[Arc<Rule>]) {
        let opening = || rules.iter().filter(|rule| rule.has_destinations());
        let any_source = opening().any(|rule| !rule.source_capabilities.is_empty());
        let sources: AddressSet =
            opening().flat_map(|rule| rule.sources.ranges()).copied().collect();
        self.candidates.retain(|source| !any_source && !sources.contains(*source));
    }
}

fn to_set(nets: impl IntoIterator<Item = IpNet>) -> AddressSet {
    nets.into_iter().map(Into::into).collect()
}

fn find_candidates<'a>(
    chunks: impl Iterator<Item = &'a Chunk>,
    source: IpAddr,
) -> Box<[Candidate]> {
    let opening = chunks.flatten().filter(|rule| rule.has_destinations());
    let candidates = opening.filter_map(|rule| {
        let is_by_address = rule.sources.contains(source);
        let is_candidate = is_by_address || !rule.source_capabilities.is_empty();
        is_candidate.then(|| Candidate { rule: Arc::clone(rule), is_by_address })
    });
    candidates.collect()
}

#[cfg(test)]
mod tests;
