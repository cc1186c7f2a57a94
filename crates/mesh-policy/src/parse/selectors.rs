//! Selectors: what they say, and where which of them may stand.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;
use ipnet::IpNet;

use super::{Decoder, SELECTORS_MAX};
use crate::hujson::Read;
use crate::policy::{Policy, Selector, SelectorId};
use crate::problem::{Refusal, nearest, quoted};

/// The autogroups that select nodes.
const AUTOGROUPS: [&str; 7] = [
    "autogroup:internet",
    "autogroup:member",
    "autogroup:tagged",
    "autogroup:self",
    "autogroup:danger-all",
    "autogroup:admin",
    "autogroup:owner",
];

/// Where a selector may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `src` of `acls` and `grants`.
    Source,
    /// `dst` of `acls`, without its ports.
    AclDestination,
    /// `dst` of `grants`.
    GrantDestination,
    /// `src` of `ssh`.
    SshSource,
    /// `dst` of `ssh`.
    SshDestination,
    /// `target` of `nodeAttrs`.
    Target,
    /// In `tagOwners`.
    Owner,
    /// In `autoApprovers`.
    Approver,
    /// `via` of `grants`.
    Via,
    /// `recorder` of `ssh`.
    Recorder,
}

/// The selectors of a policy, each once.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    selectors: Vec<Selector>,
    /// Addresses and CIDRs: one has several texts, and is as quickly read as looked up.
    prefixes: HashMap<IpNet, SelectorId>,
    /// All others, of which each has one text.
    texts: HashMap<Cow<'a, str>, Known>,
}

/// What is known of a text.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: SelectorId,
    /// A bit for each [`Place`] that it may stand in.
    places: u16,
}

impl<'a> Names<'a> {
    /// The selectors, by id.
    pub(super) fn into_selectors(self) -> Vec<Selector> {
        self.selectors
    }

    /// The selector of an id.
    pub(super) fn selector(&self, id: SelectorId) -> &Selector {
        &self.selectors[id.0 as usize]
    }

    /// The id of a selector that may stand in a place; none if there are too many.
    fn intern(&mut self, text: Cow<'a, str>, selector: Selector, place: u16) -> Option<SelectorId> {
        let next = SelectorId(u32::try_from(self.selectors.len()).ok()?);
        let known = if let Selector::Prefix(prefix) = &selector {
            self.prefixes.get(prefix).copied()
        } else {
            self.texts.get(&text).map(|known| known.id)
        };
        if known.is_none() && self.selectors.len() == SELECTORS_MAX {
            return None;
        }
        let id = known.unwrap_or(next);
        if let Selector::Prefix(prefix) = &selector {
            self.prefixes.insert(*prefix, id);
        } else {
            self.texts.entry(text).or_insert(Known { id, places: 0 }).places |= place;
        }
        if known.is_none() {
            self.selectors.push(selector);
        }
        Some(id)
    }
}

impl<'a> Decoder<'a> {
    /// A list of selectors. Those that may not stand here are refused and left out.
    pub(super) fn selectors(&mut self, place: Place) -> Read<Vec<SelectorId>> {
        self.texts(|decoder, text| decoder.selector(place, text))
    }

    /// A selector by its text; none if it may not stand here, which has been refused then.
    pub(super) fn selector(&mut self, place: Place, text: Cow<'a, str>) -> Option<SelectorId> {
        let text = trimmed(text);
        let bit = 1 << place as u16;
        let known = self.names.texts.get(&text).copied();
        if let Some(known) = known.filter(|known| known.places & bit != 0) {
            return Some(known.id);
        }
        let checked = parse_selector(&text)
            .and_then(|selector| self.check(place, &selector, &text).map(|()| selector));
        let selector = match checked {
            Ok(selector) => selector,
            Err(refusal) => {
                self.refuse(refusal);
                return None;
            }
        };
        let id = self.names.intern(text, selector, bit);
        if id.is_none() {
            self.refuse(format!("the policy names more than {SELECTORS_MAX} selectors"));
        }
        id
    }

    /// Whether a selector may stand in a place: what it names is defined, and the place is for such as it.
    fn check(&self, place: Place, selector: &Selector, text: &str) -> Result<(), Refusal> {
        if place == Place::Via && !matches!(selector, Selector::Tag(_)) {
            return Err("via can only be a tag".into());
        }
        if !Self::is_allowed(place, selector) {
            return Err(misplaced(place, selector, text));
        }
        self.check_defined(place, selector, text)?;
        if place == Place::SshSource
            && let Selector::UserDomain(domain) = selector
            && let Some(refusal) = self.foreign_domain(domain)
        {
            return Err(format!("[ssh] {refusal}").into());
        }
        Ok(())
    }

    /// Why a domain may not stand in `ssh`, if it may not: it is not one that logins of the tailnet have.
    pub(super) fn foreign_domain(&self, domain: &str) -> Option<String> {
        let domains = self.domains?;
        (!domains.iter().any(|known| known == domain)).then(|| {
            format!(
                "{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"
            )
        })
    }

    fn is_allowed(place: Place, selector: &Selector) -> bool {
        use Place::{
            AclDestination, Approver, GrantDestination, Owner, Recorder, Source, SshDestination,
            SshSource, Target, Via,
        };
        let is_rule = matches!(place, Source | AclDestination | GrantDestination);
        match selector {
            Selector::Tag(_) => true,
            Selector::User(_) => !matches!(place, Recorder | Via),
            Selector::Group(_) => !matches!(place, Recorder | Via | SshDestination),
            Selector::UserDomain(_) => is_rule || matches!(place, SshSource | Target),
            Selector::Any | Selector::Host(_) | Selector::IpSet(_) | Selector::Prefix(_) => {
                is_rule || place == Target
            }
            Selector::Member | Selector::Tagged => {
                is_rule || matches!(place, SshSource | SshDestination | Target)
            }
            Selector::SelfNodes => {
                matches!(place, AclDestination | GrantDestination | SshDestination)
            }
            Selector::Internet => matches!(place, AclDestination | GrantDestination),
            Selector::DangerAll => place == Source,
            Selector::Admin | Selector::Owner => {
                matches!(place, Source | Target | Owner | Approver)
            }
        }
    }

    fn check_defined(&self, place: Place, selector: &Selector, text: &str) -> Result<(), Refusal> {
        let policy = &self.policy;
        match selector {
            Selector::Tag(tag) if !policy.tag_owners.contains_key(tag) => Err(Refusal {
                message: undefined_tag(place, text, &self.path).into(),
                suggestion: nearest(text, keys(&policy.tag_owners)),
            }),
            Selector::Group(group) if !policy.groups.contains_key(group) => Err(Refusal {
                message: format!("group not defined in policy: {}", quoted(text)).into(),
                suggestion: nearest(text, keys(&policy.groups)),
            }),
            Selector::IpSet(set) if !policy.ipsets.contains_key(set) => Err(Refusal {
                message: format!("ipset not defined in policy: {}", quoted(text)).into(),
                suggestion: nearest(text, keys(&policy.ipsets)),
            }),
            Selector::Host(host) if !policy.hosts.contains_key(host) => {
                Err(undefined_host(place, text, policy))
            }
            Selector::Any
            | Selector::User(_)
            | Selector::UserDomain(_)
            | Selector::Group(_)
            | Selector::Tag(_)
            | Selector::Host(_)
            | Selector::IpSet(_)
            | Selector::Prefix(_)
            | Selector::Member
            | Selector::Tagged
            | Selector::SelfNodes
            | Selector::Internet
            | Selector::DangerAll
            | Selector::Admin
            | Selector::Owner => Ok(()),
        }
    }
}

fn keys<T>(map: &std::collections::BTreeMap<Arc<str>, T>) -> impl Iterator<Item = &str> {
    map.keys().map(AsRef::as_ref)
}

/// Reads a selector.
///
/// # Errors
/// A text of none of the forms, or an autogroup that there is not.
pub(crate) fn parse_selector(text: &str) -> Result<Selector, Refusal> {
    if let Some(prefix) = parse_prefix(text) {
        return Ok(Selector::Prefix(prefix));
    }
    if text == "*" {
        return Ok(Selector::Any);
    }
    if text.contains('@') {
        let domain = text.strip_prefix("user:*@").filter(|domain| is_domain(domain));
        return Ok(match domain {
            Some(domain) => Selector::UserDomain(domain.into()),
            None => Selector::User(text.into()),
        });
    }
    match text.split_once(':') {
        Some(("group", _)) => Ok(Selector::Group(text.into())),
        Some(("tag", _)) => Ok(Selector::Tag(text.into())),
        Some(("ipset", _)) => Ok(Selector::IpSet(text.into())),
        Some(("autogroup", _)) => parse_autogroup(text),
        Some(("svc", _)) => Err(format!("{}: services are not supported", quoted(text)).into()),
        Some(_) => Err(format!("invalid alias format: {}", quoted(text)).into()),
        None => Ok(Selector::Host(text.into())),
    }
}

fn parse_autogroup(text: &str) -> Result<Selector, Refusal> {
    Ok(match text {
        "autogroup:internet" => Selector::Internet,
        "autogroup:member" => Selector::Member,
        "autogroup:tagged" => Selector::Tagged,
        "autogroup:self" => Selector::SelfNodes,
        "autogroup:danger-all" => Selector::DangerAll,
        "autogroup:admin" => Selector::Admin,
        "autogroup:owner" => Selector::Owner,
        _ => {
            let known = AUTOGROUPS.join(" ");
            let message =
                format!("invalid autogroup: got {}, must be one of [{known}]", quoted(text));
            return Err(Refusal { message: message.into(), suggestion: nearest(text, AUTOGROUPS) });
        }
    })
}

/// An address or a CIDR, host bits as written.
pub(super) fn parse_prefix(text: &str) -> Option<IpNet> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_hexdigit() || first == b':') {
        return None;
    }
    if text.contains('/') {
        return text.parse().ok();
    }
    text.parse::<IpAddr>().ok().map(IpNet::from)
}

/// Whether what follows the `*@` of `user:*@…` or `localpart:*@…` is a domain; what it is otherwise is a plain name.
pub(super) fn is_domain(text: &str) -> bool {
    !text.is_empty() && !text.contains('@')
}

/// A text without white space around it.
pub(super) fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_graphic = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    let bytes = text.as_bytes();
    if is_graphic(bytes.first()) && is_graphic(bytes.last()) {
        return text;
    }
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

fn undefined_tag(place: Place, text: &str, path: &[super::Step<'_>]) -> String {
    let tag = quoted(text);
    match place {
        Place::Source => format!("src=tag not found: {tag}"),
        Place::AclDestination => format!("dst={tag}: tag not found: {tag}"),
        Place::Via => format!("tag {tag} not found"),
        Place::Owner => {
            let owned = path.iter().rev().find_map(|step| match step {
                super::Step::Key(owned) => Some(owned.as_ref()),
                super::Step::Field(_) | super::Step::Index(_) => None,
            });
            format!("tag {} references undefined tag {tag}", quoted(owned.unwrap_or_default()))
        }
        Place::GrantDestination
        | Place::SshSource
        | Place::SshDestination
        | Place::Target
        | Place::Approver
        | Place::Recorder => format!("tag not found: {tag}"),
    }
}

fn undefined_host(place: Place, text: &str, policy: &Policy) -> Refusal {
    let host = quoted(text);
    let message = if place == Place::Target {
        format!("{host}: invalid address")
    } else {
        format!("host not defined in policy: {host}")
    };
    Refusal { message: message.into(), suggestion: nearest(text, keys(&policy.hosts)) }
}

/// Why a selector may not stand in a place.
fn misplaced(place: Place, selector: &Selector, text: &str) -> Refusal {
    let name = quoted(text);
    match (place, selector) {
        (Place::Source, Selector::SelfNodes) => {
            "\"autogroup:self\" not valid on the src side of a rule".into()
        }
        (Place::Source | Place::SshSource | Place::SshDestination, Selector::Internet) => {
            "autogroup:internet can only be used in ACL destinations".into()
        }
        (Place::AclDestination | Place::GrantDestination, Selector::DangerAll) => {
            "cannot use autogroup:danger-all as a dst".into()
        }
        (Place::Source | Place::AclDestination | Place::GrantDestination, _) => {
            format!("autogroup not supported here: {name}").into()
        }
        (Place::SshSource, Selector::Any) => {
            "wildcard (*) is not supported as SSH source; use 'autogroup:member' or 'autogroup:tagged'".into()
        }
        (Place::SshSource, _) => format!("alias not supported for SSH source: {name}").into(),
        (Place::SshDestination, Selector::Any) => {
            "wildcard (*) is not supported as SSH destination; use 'autogroup:member' for devices of users, \
             'autogroup:tagged' for tagged ones, or tags"
                .into()
        }
        (Place::SshDestination, _) => {
            format!("invalid dst {name}: an SSH destination is a tag, a user, autogroup:self, autogroup:member or autogroup:tagged").into()
        }
        (Place::Target, Selector::SelfNodes) => {
            "autogroup:self cannot be a nodeAttrs target (the service answers: internal server error)".into()
        }
        (Place::Target, _) => format!("{name} cannot be a nodeAttrs target").into(),
        (Place::Owner, _) => format!("invalid owner format: {name}").into(),
        (Place::Approver, _) => format!("invalid auto approver format: {name}").into(),
        (Place::Via, _) => "via can only be a tag".into(),
        (Place::Recorder, _) => format!("recorder can only be a tag, got: {name}").into(),
    }
}
