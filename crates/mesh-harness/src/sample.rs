//! A node that is looked at closely: every message is decoded and folded, and the sum compared with a map fetched afresh.

use jiff::Timestamp;
use mesh_client::{Message, Netmap};
use mesh_wire::{MapResponse, SessionRules};
use serde::Serialize;
use serde_json::Value;

/// Most differences and broken rules that are told.
const TOLD_MAX: usize = 5;

/// What a node is told in one session, whole.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    netmap: Netmap,
    rules: SessionRules,
    complaints: Vec<String>,
}

impl Sample {
    /// A stream begins.
    pub(crate) fn begin_session(&mut self) {
        (self.netmap, self.rules) = Default::default();
    }

    /// Takes in one message.
    pub(crate) fn take(&mut self, message: &Message) {
        let decoded = message.json().map_err(|error| error.to_string());
        match decoded.and_then(|json| {
            serde_json::from_slice::<MapResponse>(&json).map_err(|error| error.to_string())
        }) {
            Ok(message) => {
                if let Err(broken) = self.rules.apply(&message) {
                    self.complain(format!("rule broken: {broken}"));
                }
                // No clock: "seen now" is told for peers whose last-seen time does not count.
                self.netmap.apply(message, Timestamp::UNIX_EPOCH);
            }
            Err(error) => self.complain(error),
        }
    }

    /// Where what was told adds up to something else than `fresh`.
    pub(crate) fn compare(&self, fresh: Netmap) -> Vec<String> {
        differences(&self.netmap.clone().normalized(), fresh.normalized())
    }

    /// What was wrong with messages since the last call.
    pub(crate) fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < TOLD_MAX {
            self.complaints.push(what);
        }
    }
}

/// Names what differs, `folded` before `fresh`.
fn differences(folded: &Netmap, mut fresh: Netmap) -> Vec<String> {
    let mut told = Vec::new();
    if *folded == fresh {
        return told;
    }
    for (id, peer) in &folded.peers {
        match fresh.peers.remove(id) {
            None => told.push(format!("peer {id} is too many")),
            Some(fresh) if fresh != *peer => {
                told.push(format!("peer {id}: {}", fields(&json(peer), &json(&fresh))));
            }
            Some(_) => {}
        }
    }
    told.extend(fresh.peers.keys().map(|id| format!("peer {id} is missing")));
    if folded.node != fresh.node {
        told.push(format!("own node: {}", fields(&json(&folded.node), &json(&fresh.node))));
    }
    for (what, same) in [
        ("user profiles", folded.user_profiles == fresh.user_profiles),
        ("relays", folded.derp_map == fresh.derp_map),
        ("packet filters", folded.packet_filters == fresh.packet_filters),
        ("DNS", folded.dns_config == fresh.dns_config),
        ("SSH policy", folded.ssh_policy == fresh.ssh_policy),
        ("domain", folded.domain == fresh.domain),
        ("health", folded.health == fresh.health),
        ("display messages", folded.display_messages == fresh.display_messages),
    ] {
        if !same {
            told.push(format!("{what} differ"));
        }
    }
    if told.is_empty() {
        told.push("something rare differs".to_owned());
    }
    told.truncate(TOLD_MAX);
    told
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The fields in which two objects differ, with both values.
fn fields(folded: &Value, fresh: &Value) -> String {
    let (Some(folded), Some(fresh)) = (folded.as_object(), fresh.as_object()) else {
        return format!("{folded} instead of {fresh}");
    };
    let nothing = Value::Null;
    let names = folded.keys().chain(fresh.keys().filter(|name| !folded.contains_key(*name)));
    let differing = names.filter_map(|name| {
        let [folded, fresh] = [folded, fresh].map(|node| node.get(name).unwrap_or(&nothing));
        (folded != fresh).then(|| format!("{name} is {folded} instead of {fresh}"))
    });
    differing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use mesh_wire::{Node, NodeId};

    use super::*;

    fn netmap(peers: &[(u64, &str)]) -> Netmap {
        let peer = |(id, name): &(u64, &str)| {
            let id = NodeId(*id);
            (id, Node { id, name: (*name).to_owned(), ..Node::default() })
        };
        Netmap { peers: peers.iter().map(peer).collect(), ..Netmap::default() }
    }

    #[test]
    fn differences_are_named() {
        let fresh = || netmap(&[(1, "a."), (2, "b.")]);
        assert!(differences(&fresh(), fresh()).is_empty());
        assert_eq!(
            differences(&netmap(&[(1, "c."), (3, "b.")]), fresh()),
            ["peer 1: Name is \"c.\" instead of \"a.\"", "peer 3 is too many", "peer 2 is missing"]
        );
        let health = Netmap { health: vec!["ill".to_owned()], ..fresh() };
        assert_eq!(differences(&health, fresh()), ["health differ"]);
    }
}
