//! What rules refer to: `groups`, `hosts`, `tagOwners`.

use std::sync::Arc;

use super::selectors::{Place, parse_prefix};
use super::{Decoder, SHORT_BYTES_MAX};
use crate::hujson::{Kind, Read};
use crate::problem::quoted;

impl Decoder<'_> {
    pub(super) fn groups(&mut self) -> Read<()> {
        self.map(|decoder, name| {
            if !name.starts_with("group:") {
                decoder.refuse(format!("group must start with 'group:', got: {}", quoted(&name)));
            }
            if decoder.policy.groups.contains_key(name.as_ref()) {
                decoder.refuse_duplicate(&name);
            }
            let members = decoder.group_members(&name)?;
            decoder.policy.groups.insert(name.into(), members);
            Ok(())
        })
    }

    fn group_members(&mut self, group: &str) -> Read<Vec<Arc<str>>> {
        match self.reader.kind()? {
            Kind::Null => self.reader.skip()?,
            Kind::List => {
                return self.texts(|decoder, member| {
                    if let Err(message) = check_member(group, &member) {
                        decoder.refuse(message);
                    }
                    Some(decoder.kept(&member, SHORT_BYTES_MAX))
                });
            }
            found @ (Kind::Object | Kind::Text | Kind::Number | Kind::Bool) => {
                let found = found.name();
                self.refuse(format!("group value must be an array of users: it is {found}"));
                self.reader.skip()?;
            }
        }
        Ok(Vec::new())
    }

    pub(super) fn hosts(&mut self) -> Read<()> {
        self.map(|decoder, name| {
            if name.contains(['@', ':']) {
                decoder
                    .refuse(format!("hostname must not contain @ or ':', got: {}", quoted(&name)));
            }
            if decoder.policy.hosts.contains_key(name.as_ref()) {
                decoder.refuse_duplicate(&name);
            }
            let Some(address) = decoder.text()? else { return Ok(()) };
            match parse_prefix(&address) {
                Some(prefix) => drop(decoder.policy.hosts.insert(name.into(), prefix)),
                None => decoder.refuse(format!(
                    "hostname contains invalid IP address: hostname {} address {}",
                    quoted(&name),
                    quoted(&address)
                )),
            }
            Ok(())
        })
    }

    /// The names in `tagOwners`; owners may be tags, so all names come before any owner.
    pub(super) fn tags(&mut self) -> Read<()> {
        self.map(|decoder, tag| {
            match tag.strip_prefix("tag:") {
                None => {
                    decoder.refuse(format!("tag must start with 'tag:', got: {}", quoted(&tag)));
                }
                Some(name) if !name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                    decoder.refuse(format!(
                        "tagOwners[{}]: tag names must start with a letter, after 'tag:'",
                        quoted(&tag)
                    ));
                }
                Some(_) => {}
            }
            if decoder.policy.tag_owners.contains_key(tag.as_ref()) {
                decoder.refuse_duplicate(&tag);
            }
            decoder.policy.tag_owners.insert(tag.into(), Vec::new());
            decoder.reader.skip()
        })
    }

    pub(super) fn tag_owners(&mut self) -> Read<()> {
        self.map(|decoder, tag| {
            let owners = decoder.optional_selectors(Place::Owner)?;
            if let Some(kept) = decoder.policy.tag_owners.get_mut(tag.as_ref()) {
                *kept = owners;
            }
            Ok(())
        })
    }

    /// A list of selectors, or null for none.
    pub(super) fn optional_selectors(
        &mut self,
        place: Place,
    ) -> Read<Vec<crate::policy::SelectorId>> {
        if self.reader.kind()? == Kind::Null {
            self.reader.skip()?;
            return Ok(Vec::new());
        }
        self.selectors(place)
    }
}

fn check_member(group: &str, member: &str) -> Result<(), String> {
    if member.starts_with("group:") {
        return Err(format!(
            "groups[{}]: {}: group members cannot be recursive",
            quoted(group),
            quoted(member)
        ));
    }
    if !member.contains('@') {
        return Err(format!("username must contain @, got: {}", quoted(member)));
    }
    Ok(())
}
