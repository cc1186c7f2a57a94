//! Who may log in to a node over SSH.
//!
//! What a rule's sources are is worked out once for all nodes that ask ([`SshCache`]); which rules concern a node is a
//! matter of its selectors.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mesh_model::{NodeId, UserId};
use roaring::RoaringBitmap;

use crate::compiled::CompiledPolicy;
use crate::facts::{NodeFacts, NodeOwner, UserFacts};
use crate::policy::{Selector, SelectorId, SshAction, SshRule, SshUser};
use crate::view::SshAccess;

/// Names asked for, and the names they log in as.
type LoginNames = BTreeMap<Arc<str>, Arc<str>>;

/// Principals of the rules of a policy, as far as they were asked for. Holds until a node comes, goes, or changes its
/// owner or addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct SshCache(Arc<[OnceLock<SshSources>]>);

impl SshCache {
    /// A cache for this many rules, which knows nothing.
    pub(crate) fn of_len(rules: usize) -> Self {
        Self((0..rules).map(|_| OnceLock::new()).collect())
    }

    /// Forgets everything, and what it shared with clones: an older one may yet fill its own.
    pub(crate) fn clear(&mut self) {
        match Arc::get_mut(&mut self.0) {
            Some(sources) => sources.iter_mut().for_each(|sources| drop(sources.take())),
            None => *self = Self::of_len(self.0.len()),
        }
    }
}

/// The addresses that a rule lets in, by whose they are.
#[derive(Debug, Default)]
struct SshSources {
    /// Of untagged nodes, by user.
    by_user: BTreeMap<UserId, Arc<[IpAddr]>>,
    /// Of tagged nodes, once for each tag of a node, as the service repeats them.
    tagged: Arc<[IpAddr]>,
    /// Those of users, then the tagged ones.
    all: Arc<[IpAddr]>,
}

impl SshSources {
    fn of(compiled: &CompiledPolicy, rule: &SshRule) -> Self {
        let mut by_user: BTreeMap<UserId, Vec<IpAddr>> = BTreeMap::new();
        let mut tagged = Vec::new();
        for node in
            compiled.nodes_of_any(&rule.src).iter().filter_map(|id| compiled.node(NodeId(id)))
        {
            match &node.owner {
                NodeOwner::User(user) => by_user.entry(*user).or_default().extend(node.addresses()),
                NodeOwner::Tags(tags) => {
                    for _ in &**tags {
                        tagged.extend(node.addresses());
                    }
                }
            }
        }
        Self {
            all: by_user.values().flatten().chain(&tagged).copied().collect(),
            by_user: by_user
                .into_iter()
                .map(|(user, addresses)| (user, addresses.into()))
                .collect(),
            tagged: tagged.into(),
        }
    }
}

impl CompiledPolicy {
    /// Who may log in to a node, in order: the first match counts. Empty without such a node.
    ///
    /// Rules that ask for a check come first. A rule with `localpart:*@domain` yields one for each source user and
    /// another for that user's own login name, also on the source nodes themselves.
    ///
    /// Source: POLICY 10 of the design, from captures.
    pub fn ssh_access(&self, node: NodeId) -> Vec<SshAccess> {
        let Some(facts) = self.node(node) else { return Vec::new() };
        let mut rules = Vec::new();
        for (rule, cached) in self.policy().ssh.iter().zip(&*self.ssh.0) {
            let place = Place::of(self, rule, facts);
            if place.is_concerned() {
                let sources = cached.get_or_init(|| SshSources::of(self, rule));
                let writer = RuleWriter::new(self, rule);
                writer.write(&place, facts, sources, &mut rules);
            }
        }
        rules.sort_by_key(|access: &SshAccess| access.check_period.is_none());
        rules
    }

    /// The nodes that one of these selects.
    pub(crate) fn nodes_of_any(&self, selectors: &[SelectorId]) -> RoaringBitmap {
        selectors
            .iter()
            .fold(RoaringBitmap::new(), |nodes, selector| nodes | self.nodes_selected(*selector))
    }

    /// Whether one of these selects a node.
    pub(crate) fn selects_any(&self, selectors: &[SelectorId], node: NodeId) -> bool {
        selectors.iter().any(|selector| self.selects(*selector, node))
    }
}

/// What a node is to a rule.
#[derive(Debug)]
struct Place {
    /// One of the user's own nodes that `autogroup:self` stands for.
    is_self: bool,
    is_destination: bool,
    /// A source that only gets access to itself: the rule has a local part and its destinations are elsewhere.
    is_source_only: bool,
}

impl Place {
    fn of(compiled: &CompiledPolicy, rule: &SshRule, node: &NodeFacts) -> Self {
        let is_self =
            |selector: &&SelectorId| *compiled.policy().selector(**selector) == Selector::SelfNodes;
        let has_self = rule.dst.iter().any(|selector| is_self(&selector));
        let has_others = rule.dst.iter().any(|selector| !is_self(&selector));
        let is_destination = compiled.selects_any(&rule.dst, node.id);
        Self {
            is_self: has_self && node.user().is_some(),
            is_destination,
            is_source_only: has_others
                && !is_destination
                && has_local_part(rule)
                && compiled.selects_any(&rule.src, node.id),
        }
    }

    fn is_concerned(&self) -> bool {
        self.is_self || self.is_destination || self.is_source_only
    }
}

fn has_local_part(rule: &SshRule) -> bool {
    rule.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)))
}

/// Writes what a rule comes to.
struct RuleWriter<'a> {
    compiled: &'a CompiledPolicy,
    rule: &'a SshRule,
    /// What every principal may log in as.
    common: LoginNames,
    accept_env: Arc<[Arc<str>]>,
    recorders: Vec<IpAddr>,
}

impl<'a> RuleWriter<'a> {
    fn new(compiled: &'a CompiledPolicy, rule: &'a SshRule) -> Self {
        let recorders = compiled.nodes_of_any(&rule.recorder);
        let recorders = recorders.iter().filter_map(|id| compiled.node(NodeId(id)));
        Self {
            compiled,
            rule,
            common: common_names(&rule.users),
            accept_env: rule.accept_env.as_slice().into(),
            recorders: recorders.flat_map(NodeFacts::addresses).collect(),
        }
    }

    fn write(
        &self,
        place: &Place,
        node: &NodeFacts,
        sources: &SshSources,
        rules: &mut Vec<SshAccess>,
    ) {
        if place.is_self {
            self.write_own(node, sources, rules);
        }
        if place.is_destination && !has_local_part(self.rule) {
            self.write_one(&sources.all, self.common.clone(), rules);
        } else if place.is_destination {
            for (user, principals) in &sources.by_user {
                self.write_user(*user, principals, rules);
            }
            self.write_one(&sources.tagged, self.common.clone(), rules);
        } else if place.is_source_only {
            self.write_own(node, sources, rules);
        }
    }

    /// Rules for the node's own user; a tagged node is its own user.
    fn write_own(&self, node: &NodeFacts, sources: &SshSources, rules: &mut Vec<SshAccess>) {
        let Some(user) = node.user() else {
            let own: Arc<[IpAddr]> = node.addresses().collect();
            return self.write_one(&own, self.common.clone(), rules);
        };
        if let Some(principals) = sources.by_user.get(&user) {
            self.write_user(user, principals, rules);
        }
    }

    /// A rule for a user's nodes, and one for its own login name.
    fn write_user(&self, user: UserId, principals: &Arc<[IpAddr]>, rules: &mut Vec<SshAccess>) {
        self.write_one(principals, self.common.clone(), rules);
        let local_part = self.compiled.user(user).and_then(|user| self.local_part(user));
        if let Some(name) = local_part {
            self.write_one(principals, [(name.clone(), name)].into(), rules);
        }
    }

    /// A rule, unless there is nobody to let in.
    fn write_one(
        &self,
        principals: &Arc<[IpAddr]>,
        ssh_users: LoginNames,
        rules: &mut Vec<SshAccess>,
    ) {
        if principals.is_empty() {
            return;
        }
        rules.push(SshAccess {
            principals: principals.clone(),
            ssh_users,
            check_period: check_period(self.rule.action),
            accept_env: self.accept_env.clone(),
            recorders: self.recorders.clone(),
            enforce_recorder: self.rule.enforce_recorder,
        });
    }

    /// What stands before the `@` of the user's login, if the rule names the domain after it.
    fn local_part(&self, user: &UserFacts) -> Option<Arc<str>> {
        let (local_part, domain) = user.login().rsplit_once('@')?;
        let is_named =
            |user: &SshUser| matches!(user, SshUser::LocalPart(named) if **named == *domain);
        self.rule.users.iter().any(is_named).then(|| local_part.into())
    }
}

fn check_period(action: SshAction) -> Option<Duration> {
    match action {
        SshAction::Accept => None,
        SshAction::Check { period } => Some(period),
    }
}

/// What login names alone allow; `root` always has an entry, which is empty where it is refused.
fn common_names(users: &[SshUser]) -> LoginNames {
    let mut names: LoginNames = [("root".into(), "".into())].into();
    for user in users {
        match user {
            SshUser::Root => names.insert("root".into(), "root".into()),
            SshUser::NonRoot => names.insert("*".into(), "=".into()),
            SshUser::Name(name) => names.insert(name.clone(), name.clone()),
            SshUser::LocalPart(_) => None,
        };
    }
    names
}

#[cfg(test)]
mod tests;
