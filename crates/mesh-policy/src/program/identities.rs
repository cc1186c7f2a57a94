//! What selects nodes by who they belong to.

use std::sync::Arc;

use foldhash::HashMap;

use super::Atom;
use crate::policy::{Policy, Selector};

/// Selectors by what nodes are.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    pub(crate) tags: HashMap<Arc<str>, Atom>,
    /// User and group selectors by the users' login names.
    pub(crate) logins: HashMap<Arc<str>, Vec<Atom>>,
    /// Selectors of whole domains.
    pub(crate) domains: HashMap<Arc<str>, Atom>,
    pub(crate) member: Option<Atom>,
    pub(crate) tagged: Option<Atom>,
    pub(crate) admin: Option<Atom>,
    pub(crate) owner: Option<Atom>,
}

impl Identities {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut index = Self::default();
        let login =
            |token: &Arc<str>| -> Arc<str> { token.strip_suffix('@').unwrap_or(token).into() };
        for (atom, selector) in (0..).zip(&policy.selectors) {
            match selector {
                Selector::User(token) => index.logins.entry(login(token)).or_default().push(atom),
                Selector::Group(name) => {
                    for token in policy.groups.get(name).into_iter().flatten() {
                        index.logins.entry(login(token)).or_default().push(atom);
                    }
                }
                Selector::UserDomain(domain) => {
                    index.domains.insert(domain.clone(), atom);
                }
                Selector::Tag(tag) => {
                    index.tags.insert(tag.clone(), atom);
                }
                Selector::Member => index.member = Some(atom),
                Selector::Tagged => index.tagged = Some(atom),
                Selector::Admin => index.admin = Some(atom),
                Selector::Owner => index.owner = Some(atom),
                Selector::Any
                | Selector::Host(_)
                | Selector::IpSet(_)
                | Selector::Prefix(_)
                | Selector::SelfNodes
                | Selector::Internet
                | Selector::DangerAll => {}
            }
        }
        index
    }
}
