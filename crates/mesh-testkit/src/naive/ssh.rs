//! Section 10: who may log in over SSH.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::NodeId;
use mesh_policy::policy::{SshAction, SshRule, SshUser};
use mesh_policy::{NodeFacts, Selector, SshAccess};

use super::Naive;
use super::selectors::domain_of;

type SshUsers = BTreeMap<Arc<str>, Arc<str>>;

impl Naive<'_> {
    /// Section 10: all rules in order, those that ask for a check first.
    pub(super) fn ssh(&self, node: &NodeFacts) -> Vec<SshAccess> {
        let mut all: Vec<SshAccess> =
            self.policy.ssh.iter().flat_map(|rule| self.ssh_rule(rule, node)).collect();
        all.sort_by_key(|access| access.check_period.is_none());
        all
    }

    /// Section 10, steps 1 to 7.
    fn ssh_rule(&self, rule: &SshRule, node: &NodeFacts) -> Vec<SshAccess> {
        let sources = self.selected(&rule.src);
        let is_self = |dst| *self.policy.selector(dst) == Selector::SelfNodes;
        let has_self = rule.dst.iter().any(|dst| is_self(*dst));
        let has_other = rule.dst.iter().any(|dst| !is_self(*dst));
        let is_other = rule.dst.iter().any(|dst| !is_self(*dst) && self.selects(*dst, node));
        let has_local_part = rule.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)));
        let mut logins = Vec::new();
        if let (true, Some(user)) = (has_self, node.user()) {
            logins.extend(self.logins_of_user(rule, &sources, user.0));
        }
        if is_other {
            if has_local_part {
                logins.extend(self.local_part_logins(rule, &sources));
            } else {
                logins.push((self.principals(&sources), ssh_users(rule)));
            }
        } else if has_local_part && has_other && sources.contains(&node.id) {
            logins.extend(self.own_logins(rule, &sources, node));
        }
        logins.retain(|(principals, _)| !principals.is_empty());
        logins.into_iter().map(|(principals, users)| self.access(rule, principals, users)).collect()
    }

    /// Section 10, step 2: addresses by user, then of tagged nodes, once per tag.
    fn principals(&self, sources: &BTreeSet<NodeId>) -> Vec<IpAddr> {
        let mut principals: Vec<IpAddr> = self
            .source_users(sources)
            .iter()
            .flat_map(|user| self.of_user(sources, *user))
            .collect();
        principals.extend(self.tagged_principals(sources));
        principals
    }

    fn source_users(&self, sources: &BTreeSet<NodeId>) -> BTreeSet<u64> {
        sources.iter().filter_map(|id| Some(self.nodes[id].user()?.0)).collect()
    }

    fn of_user(&self, sources: &BTreeSet<NodeId>, user: u64) -> Vec<IpAddr> {
        let nodes = sources.iter().map(|id| self.nodes[id]);
        let nodes = nodes.filter(|node| node.user().is_some_and(|id| id.0 == user));
        nodes.flat_map(NodeFacts::addresses).collect()
    }

    fn tagged_principals(&self, sources: &BTreeSet<NodeId>) -> Vec<IpAddr> {
        let nodes = sources.iter().map(|id| self.nodes[id]);
        let repeated = nodes.flat_map(|node| node.tags().iter().map(move |_| node));
        repeated.flat_map(NodeFacts::addresses).collect()
    }

    /// Section 10, step 5 with a local part: per source user a rule, and one for its local part; then the tagged.
    fn local_part_logins(
        &self,
        rule: &SshRule,
        sources: &BTreeSet<NodeId>,
    ) -> Vec<(Vec<IpAddr>, SshUsers)> {
        let users = self.source_users(sources);
        let mut logins: Vec<_> =
            users.iter().flat_map(|user| self.logins_of_user(rule, sources, *user)).collect();
        logins.push((self.tagged_principals(sources), ssh_users(rule)));
        logins
    }

    /// Section 10, steps 4 and 5: a rule for a user's nodes; with a local part of its domain one more.
    fn logins_of_user(
        &self,
        rule: &SshRule,
        sources: &BTreeSet<NodeId>,
        user: u64,
    ) -> Vec<(Vec<IpAddr>, SshUsers)> {
        let principals = self.of_user(sources, user);
        let login = self.users.get(&user).map_or("", |user| user.login());
        let local_part = login.rsplit_once('@').map_or("", |(local, _)| local);
        let is_in_domain = rule.users.iter().any(|user| match user {
            SshUser::LocalPart(domain) => domain_of(login) == Some(domain),
            SshUser::Root | SshUser::NonRoot | SshUser::Name(_) => false,
        });
        let mut logins = vec![(principals.clone(), ssh_users(rule))];
        if is_in_domain {
            logins.push((principals, SshUsers::from([(local_part.into(), local_part.into())])));
        }
        logins
    }

    /// Section 10, step 6: with a local part, sources may log in to themselves.
    fn own_logins(
        &self,
        rule: &SshRule,
        sources: &BTreeSet<NodeId>,
        node: &NodeFacts,
    ) -> Vec<(Vec<IpAddr>, SshUsers)> {
        match node.user() {
            Some(user) => self.logins_of_user(rule, sources, user.0),
            None => vec![(node.addresses().collect(), ssh_users(rule))],
        }
    }

    /// Section 10, step 7.
    fn access(&self, rule: &SshRule, principals: Vec<IpAddr>, ssh_users: SshUsers) -> SshAccess {
        let recorders = self.selected(&rule.recorder);
        SshAccess {
            principals: principals.into(),
            ssh_users,
            check_period: match rule.action {
                SshAction::Accept => None,
                SshAction::Check { period } => Some(period),
            },
            accept_env: rule.accept_env.clone().into(),
            recorders: recorders.iter().flat_map(|id| self.nodes[id].addresses()).collect(),
            enforce_recorder: rule.enforce_recorder,
        }
    }
}

/// Section 10, step 3: whom names asked for log in as.
fn ssh_users(rule: &SshRule) -> SshUsers {
    let root = if rule.users.contains(&SshUser::Root) { "root" } else { "" };
    let mut users = SshUsers::from([("root".into(), root.into())]);
    for user in &rule.users {
        match user {
            SshUser::Root | SshUser::LocalPart(_) => {}
            SshUser::NonRoot => drop(users.insert("*".into(), "=".into())),
            SshUser::Name(name) => drop(users.insert(name.clone(), name.clone())),
        }
    }
    users
}
