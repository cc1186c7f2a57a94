//! What needs no admin: routes that are approved by themselves, and tags that users may give to their nodes.

use ipnet::IpNet;
use mesh_model::UserId;
use thiserror::Error;

use crate::compiled::CompiledPolicy;
use crate::facts::{NodeFacts, UserFacts};
use crate::policy::{Selector, SelectorId};

/// Why a node may not have a tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TagRefusal {
    /// Policy knows no such tag.
    #[error("{tag} is not defined in tagOwners")]
    Undefined {
        /// The tag that was asked for.
        tag: String,
    },
    /// The user does not own it, nor does a tag that the node carries.
    #[error("{user} is not an owner of {tag}")]
    NotOwner {
        /// The tag that was asked for.
        tag: String,
        /// Login name of the user.
        user: String,
    },
}

impl CompiledPolicy {
    /// Which of the routes that a node offers are approved without an admin, sorted, each once.
    ///
    /// A subnet route is if it lies within a key of `autoApprovers.routes` that has the node among its approvers; an
    /// exit route only by `autoApprovers.exitNode`. The node need not be one of the tailnet's yet.
    ///
    /// Source: POLICY 12.1 of the design, from captures.
    pub fn auto_approved(&self, node: &NodeFacts, offered: &[IpNet]) -> Vec<IpNet> {
        let approvers = &self.policy().auto_approvers;
        if offered.is_empty() || approvers.is_empty() {
            return Vec::new();
        }
        let selectors = self.members_of(node);
        let is_approved = |route: &IpNet| {
            if route.prefix_len() == 0 {
                return self.is_any_of(&approvers.exit_node, &selectors);
            }
            let mut covering = approvers.routes.iter().filter(|(key, _)| key.contains(route));
            covering.any(|(_, approvers)| self.is_any_of(approvers, &selectors))
        };
        let mut approved: Vec<IpNet> =
            offered.iter().map(IpNet::trunc).filter(is_approved).collect();
        approved.sort_unstable();
        approved.dedup();
        approved
    }

    /// Whether a tag is a key of `tagOwners`.
    pub fn is_tag_defined(&self, tag: &str) -> bool {
        self.policy().tag_owners.contains_key(tag)
    }

    /// Whether a user may give a tag to a node, which is `None` while it is being registered.
    ///
    /// The user must own the tag, itself, by a group or by an autogroup; or the node carries the tag already, or one
    /// that owns it, directly or through further tags.
    ///
    /// # Errors
    /// [`TagRefusal`] says what is missing.
    ///
    /// Source: POLICY 12.2 of the design.
    pub fn permits_tag(
        &self,
        user: UserId,
        node: Option<&NodeFacts>,
        tag: &str,
    ) -> Result<(), TagRefusal> {
        let Some(owners) = self.policy().tag_owners.get(tag) else {
            return Err(TagRefusal::Undefined { tag: tag.to_owned() });
        };
        let user = self.user(user);
        let carried = node.map_or(&[][..], NodeFacts::tags);
        let is_carried = |owned: &str| carried.iter().any(|carried| **carried == *owned);
        if user.is_some_and(|user| self.is_among(user, owners))
            || self.owning_tags(tag).into_iter().any(is_carried)
        {
            return Ok(());
        }
        let login = user.map_or("nobody", UserFacts::login);
        Err(TagRefusal::NotOwner { tag: tag.to_owned(), user: login.to_owned() })
    }

    fn is_among(&self, user: &UserFacts, owners: &[SelectorId]) -> bool {
        let is_member = |owner: &SelectorId| *self.policy().selector(*owner) == Selector::Member;
        owners.iter().any(is_member) || self.is_any_of(owners, &self.user_atoms(user))
    }

    /// A tag, those among its owners, those among theirs, and so on; each once, so that a cycle ends.
    fn owning_tags<'a>(&'a self, tag: &'a str) -> Vec<&'a str> {
        let policy = self.policy();
        let mut found = vec![tag];
        let mut next = 0;
        while let Some(tag) = found.get(next) {
            next += 1;
            for owner in policy.tag_owners.get(*tag).into_iter().flatten() {
                if let Selector::Tag(owner) = policy.selector(*owner)
                    && !found.contains(&&**owner)
                {
                    found.push(owner);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
