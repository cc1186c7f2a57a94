//! What another policy would change in a tailnet as it is: who gains and who loses what.
//!
//! Nodes that neither policy tells apart are looked at once. Their filters are compared as sets of who may send what to
//! where, so that a rule that is merely written in another way changes nothing.

mod filters;
mod sets;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;
use serde::Serialize;

use crate::compiled::{ClassId, CompiledPolicy};
use crate::view::{Capabilities, SshAccess};
use filters::FilterDiff;
use sets::{Changes, Names, Sets, capability_text};

/// How many lines a text has for each kind of change.
const LINES_MAX: usize = 40;

/// How many names a line lists for each side.
const NAMES_MAX: usize = 8;

/// What another policy would change. Its text is for people and leaves out what is too much to read; `{:#}` leaves out
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyDiff {
    /// Who reaches what, the widest change first.
    pub access: Vec<Change>,
    /// Who may log in where over SSH.
    pub ssh: Vec<Change>,
    /// Which attributes nodes have; without sources.
    pub attributes: Vec<Change>,
    /// Which routes would be approved without an admin; without sources. Filled by [`PolicyDiff::add_approvals`].
    pub routes: Vec<Change>,
    /// How many nodes there are.
    pub nodes: u64,
    /// How many of them see other peers than before.
    pub nodes_with_other_peers: u64,
    /// How many have another packet filter, if only in its form.
    pub nodes_with_other_filters: u64,
    /// How many have other SSH rules, if only in their form.
    pub nodes_with_other_ssh: u64,
}

/// Something gained or lost. Names are users, tags, or groups of the policy that hold exactly these nodes;
/// addresses that are no node's stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Gained or lost.
    pub effect: Effect,
    /// Who.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Where.
    pub destinations: Vec<String>,
    /// What: ports, login names, attributes, routes.
    pub what: Vec<String>,
}

/// Whether something is there after the change or was before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is there after the change.
    Gained,
    /// It was there before the change.
    Lost,
}

impl PolicyDiff {
    /// Whether nobody would notice.
    pub fn is_empty(&self) -> bool {
        *self == Self { nodes: self.nodes, ..Self::default() }
    }

    /// Adds the routes that the new policy would approve, of those that nodes offer and that are not approved yet.
    pub fn add_approvals<'a>(
        &mut self,
        new: &CompiledPolicy,
        pending: impl IntoIterator<Item = (NodeId, &'a [IpNet])>,
    ) {
        for (node, offered) in pending {
            let Some(facts) = new.node(node) else { continue };
            let approved = new.auto_approved(facts, offered);
            if !approved.is_empty() {
                self.routes.push(Change {
                    effect: Effect::Gained,
                    sources: Vec::new(),
                    destinations: vec![new.describe(facts)],
                    what: approved.iter().map(ToString::to_string).collect(),
                });
            }
        }
    }
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "nothing changes for the {} nodes", self.nodes);
        }
        let sections = [
            ("access", &self.access),
            ("ssh", &self.ssh),
            ("node attributes", &self.attributes),
            ("routes approved", &self.routes),
        ];
        for (title, changes) in sections {
            if changes.is_empty() {
                continue;
            }
            writeln!(f, "{title}")?;
            let shown = if f.alternate() { changes.len() } else { LINES_MAX.min(changes.len()) };
            for change in &changes[..shown] {
                change.write(f)?;
            }
            if changes.len() > shown {
                writeln!(f, "  and {} more", changes.len() - shown)?;
            }
        }
        write!(
            f,
            "of {} nodes, {} see other peers, {} have another packet filter, {} have other SSH rules",
            self.nodes,
            self.nodes_with_other_peers,
            self.nodes_with_other_filters,
            self.nodes_with_other_ssh
        )
    }
}

impl Change {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.effect {
            Effect::Gained => '+',
            Effect::Lost => '-',
        };
        write!(f, "  {sign} ")?;
        if !self.sources.is_empty() {
            write_names(f, &self.sources)?;
            f.write_str(" -> ")?;
        }
        write_names(f, &self.destinations)?;
        f.write_str(": ")?;
        write_names(f, &self.what)?;
        f.write_str("\n")
    }
}

fn write_names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    let shown = if f.alternate() { names.len() } else { NAMES_MAX.min(names.len()) };
    f.write_str(&names[..shown].join(", "))?;
    if names.len() > shown { write!(f, " and {} more", names.len() - shown) } else { Ok(()) }
}

impl CompiledPolicy {
    /// What another policy would change for the nodes that both know.
    ///
    /// Takes time by the number of classes whose filters differ.
    pub fn diff(&self, new: &Self) -> PolicyDiff {
        let names = Names::of(self, new);
        let mut diff = PolicyDiff { nodes: names.node_count(), ..PolicyDiff::default() };
        let mut sets = Sets::of(self);
        let (mut access, mut ssh, mut attributes) =
            (Changes::default(), Changes::default(), Changes::default());
        let mut filters = FilterDiff::new(self, new);
        for nodes in alike(self, new) {
            let Some(node) = nodes.min().map(NodeId) else { continue };
            if self.peers(node) != new.peers(node) {
                diff.nodes_with_other_peers += nodes.len();
            }
            if filters.compare(node, &nodes, &mut sets, &mut access) {
                diff.nodes_with_other_filters += nodes.len();
            }
        }
        let has_attributes = has_other_attributes(self, new);
        for node in names.nodes() {
            let (before, after) = (self.ssh_access(node), new.ssh_access(node));
            if before != after {
                diff.nodes_with_other_ssh += 1;
                compare_ssh(node, [&before, &after], &mut sets, &mut ssh);
            }
            if has_attributes {
                let sides = [self.attributes(node), new.attributes(node)];
                compare_attributes(node, &sides, &mut attributes);
            }
        }
        diff.access = access.named(&names, &sets);
        diff.ssh = ssh.named(&names, &sets);
        diff.attributes = attributes.named(&names, &sets);
        diff
    }
}

/// The nodes of both, by what neither policy tells apart.
fn alike(old: &CompiledPolicy, new: &CompiledPolicy) -> Vec<RoaringBitmap> {
    let mut alike: HashMap<(ClassId, ClassId), RoaringBitmap> = HashMap::new();
    for node in old.nodes().map(|node| node.id) {
        if let (Some(before), Some(after)) = (old.class_of(node), new.class_of(node)) {
            alike.entry((before, after)).or_default().insert(node.0);
        }
    }
    let mut alike: Vec<RoaringBitmap> = alike.into_values().collect();
    alike.sort_by_key(RoaringBitmap::min);
    alike
}

fn has_other_attributes(old: &CompiledPolicy, new: &CompiledPolicy) -> bool {
    let flags = |compiled: &CompiledPolicy| {
        let policy = compiled.policy();
        (policy.randomize_client_port, policy.disable_ipv4, policy.one_cgnat_route)
    };
    let has_any = |compiled: &CompiledPolicy| !compiled.policy().node_attrs.is_empty();
    flags(old) != flags(new) || has_any(old) || has_any(new)
}

/// Who may log in as whom, before and after.
fn compare_ssh(node: NodeId, sides: [&[SshAccess]; 2], sets: &mut Sets, changes: &mut Changes) {
    let [before, after] = sides.map(|rules| logins(rules, sets));
    for (login, sources) in &after {
        let gained = sources - before.get(login).unwrap_or(&RoaringBitmap::new());
        changes.add_node(Effect::Gained, &gained, node, login);
    }
    for (login, sources) in &before {
        let lost = sources - after.get(login).unwrap_or(&RoaringBitmap::new());
        changes.add_node(Effect::Lost, &lost, node, login);
    }
}

fn logins(rules: &[SshAccess], sets: &Sets) -> BTreeMap<String, RoaringBitmap> {
    let mut logins: BTreeMap<String, RoaringBitmap> = BTreeMap::new();
    for rule in rules {
        let sources: RoaringBitmap =
            rule.principals.iter().filter_map(|address| sets.node_at(*address)).collect();
        let after_check = if rule.check_period.is_some() { " after a check" } else { "" };
        for (name, _) in rule.ssh_users.iter().filter(|(_, login)| !login.is_empty()) {
            let name = if **name == *"*" { "autogroup:nonroot" } else { name };
            *logins.entry(format!("as {name}{after_check}")).or_default() |= &sources;
        }
    }
    logins
}

fn compare_attributes(node: NodeId, sides: &[Capabilities; 2], changes: &mut Changes) {
    let [before, after] = sides;
    let sides = [(Effect::Lost, before, after), (Effect::Gained, after, before)];
    for (effect, these, others) in sides {
        for (name, values) in these {
            if others.get(name) != Some(values) {
                let text = capability_text(name, values.as_deref());
                changes.add_node(effect, &RoaringBitmap::new(), node, &text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
