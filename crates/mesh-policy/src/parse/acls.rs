//! `acls`, and what they have in common with `grants`.

use std::borrow::Cow;
use std::sync::Arc;

use super::ports::{has_ports, parse_ports, parse_protocol, split_destination};
use super::selectors::{Place, trimmed};
use super::{Decoder, Step};
use crate::hujson::{Kind, Read};
use crate::policy::{Acl, AclDestination, PortRange, Ports, Selector, SelectorId};
use crate::problem::{nearest, quoted};

const FIELDS: &[&str] = &["action", "proto", "src", "dst", "srcPosture", "users", "ports"];

/// How many postures a rule may name: the default ones stand in every rule.
const RULE_POSTURES_MAX: usize = 10;

impl<'a> Decoder<'a> {
    pub(super) fn acls(&mut self) -> Read<()> {
        let acls = self.rules(Self::acl)?;
        self.policy.acls = Some(acls);
        Ok(())
    }

    fn acl(&mut self, line: u32) -> Read<Acl> {
        let start = self.reader.token();
        let src_posture = Vec::new();
        let mut acl = Acl { line, src: Vec::new(), dst: Vec::new(), proto: None, src_posture };
        let mut action = None;
        let mut proto = None;
        let mut self_at = None;
        let mut posture = None;
        let is_object = self.reader.kind()? == Kind::Object;
        self.fields_but(
            FIELDS,
            |name| name.starts_with('#'),
            |decoder, name| {
                match name {
                    "action" => action = Some(decoder.action()?),
                    "proto" => proto = decoder.text()?,
                    "src" | "users" if acl.src.is_empty() => {
                        acl.src = decoder.selectors(Place::Source)?;
                    }
                    "dst" | "ports" if acl.dst.is_empty() => {
                        acl.dst = decoder.acl_destinations(&mut self_at)?;
                    }
                    "srcPosture" => posture = Some(decoder.posture_names()?),
                    _ => {
                        decoder.refuse("`users` and `ports` are old names of `src` and `dst`: write only one of the two");
                        decoder.reader.skip()?;
                    }
                }
                Ok(())
            },
        )?;
        if !is_object {
            return Ok(acl);
        }
        if action.is_none() {
            self.refuse_at(start, "action=\"\" is not supported: it has to be \"accept\"");
        }
        acl.src_posture = self.posture_or_default(posture);
        acl.proto = self.acl_protocol(start, proto, &acl.dst);
        if let Some(offset) = self_at {
            self.check_self(offset, &acl.src, true);
        }
        Ok(acl)
    }

    fn action(&mut self) -> Read<()> {
        if let Some(action) = self.text()?
            && action != "accept"
        {
            let message = format!("action={} is not supported", quoted(&action));
            self.refuse(message);
        }
        Ok(())
    }

    /// The destinations; `self_at` becomes the offset of the first `autogroup:self`.
    fn acl_destinations(&mut self, self_at: &mut Option<usize>) -> Read<Vec<AclDestination>> {
        self.texts(|decoder, text| {
            if !decoder.count_rule_entry() {
                return None;
            }
            let destination = decoder.acl_destination(text)?;
            if *decoder.names.selector(destination.selector) == Selector::SelfNodes {
                self_at.get_or_insert(decoder.reader.token());
            }
            Some(destination)
        })
    }

    fn acl_destination(&mut self, text: Cow<'a, str>) -> Option<AclDestination> {
        match trimmed(text) {
            Cow::Borrowed(text) => {
                let (selector, ports) = self.split_acl_destination(text)?;
                self.acl_destination_of(selector, ports)
            }
            Cow::Owned(text) => {
                let (selector, ports) = self.split_acl_destination(&text)?;
                self.acl_destination_of(Cow::Owned(selector.into_owned()), ports)
            }
        }
    }

    /// The selector's text and the ports. A port that is none often is the end of a selector without ports: then the
    /// selector is not judged.
    fn split_acl_destination<'t>(&mut self, text: &'t str) -> Option<(Cow<'t, str>, Ports)> {
        let refused = match split_destination(text) {
            Err(error) => format!("dst={}: {error}", quoted(text)),
            Ok((selector, ports)) => match parse_ports(ports) {
                Ok(ports) => return Some((selector, ports)),
                Err(error) => {
                    format!("dst={}: port range {}: {error}", quoted(text), quoted(ports))
                }
            },
        };
        self.refuse(refused);
        None
    }

    fn acl_destination_of(
        &mut self,
        selector: Cow<'a, str>,
        ports: Ports,
    ) -> Option<AclDestination> {
        let selector = self.selector(Place::AclDestination, selector)?;
        Some(AclDestination { selector, ports })
    }

    fn acl_protocol(
        &mut self,
        start: usize,
        text: Option<Cow<'a, str>>,
        destinations: &[AclDestination],
    ) -> Option<u8> {
        let text = text.filter(|text| !text.is_empty())?;
        let refused = match parse_protocol(&text) {
            Err(error) => error,
            Ok(number) => {
                let has_narrow =
                    destinations.iter().any(|destination| *destination.ports != [PortRange::ALL]);
                if has_ports(Some(number)) || !has_narrow {
                    return Some(number);
                }
                format!(
                    "protocol does not support specific ports: {}, only \"*\" is allowed",
                    quoted(&text)
                )
            }
        };
        self.within(Step::Field("proto"), |decoder| decoder.refuse_at(start, refused));
        None
    }

    /// Refuses `autogroup:self` as a destination where a source is not made of users.
    pub(super) fn check_self(&mut self, offset: usize, src: &[SelectorId], may_be_any: bool) {
        let is_of_users = |id: &SelectorId| match self.names.selector(*id) {
            Selector::User(_)
            | Selector::UserDomain(_)
            | Selector::Group(_)
            | Selector::Member
            | Selector::Admin
            | Selector::Owner => true,
            Selector::Any => may_be_any,
            Selector::Tag(_)
            | Selector::Host(_)
            | Selector::IpSet(_)
            | Selector::Prefix(_)
            | Selector::Tagged
            | Selector::SelfNodes
            | Selector::Internet
            | Selector::DangerAll => false,
        };
        if !src.iter().all(is_of_users) {
            let message =
                "autogroup:self can only be used with users, groups, or supported autogroups";
            self.within(Step::Field("dst"), |decoder| decoder.refuse_at(offset, message));
        }
    }

    /// `srcPosture`.
    pub(super) fn posture_names(&mut self) -> Read<Vec<Arc<str>>> {
        let mut count = 0;
        self.texts(|decoder, text| {
            count += 1;
            if count > RULE_POSTURES_MAX {
                if count == RULE_POSTURES_MAX + 1 {
                    decoder.refuse(format!("a rule names at most {RULE_POSTURES_MAX} postures"));
                }
                return None;
            }
            let known = decoder.policy.postures.get_key_value(text.as_ref());
            let name = known.map(|(name, _)| Arc::clone(name));
            if name.is_none() {
                decoder.refuse_posture(&text);
            }
            name
        })
    }

    fn refuse_posture(&mut self, name: &str) {
        let known = self.policy.postures.keys().map(AsRef::as_ref);
        let suggestion = nearest(name, known);
        let message = format!("posture not defined in policy: {}", quoted(name)).into();
        self.refuse(crate::problem::Refusal { message, suggestion });
    }

    /// The postures of a rule: its own, or where it names none the default.
    pub(super) fn posture_or_default(&self, own: Option<Vec<Arc<str>>>) -> Vec<Arc<str>> {
        own.filter(|own| !own.is_empty()).unwrap_or_else(|| self.default_posture.clone())
    }

    pub(super) fn default_src_posture(&mut self) -> Read<()> {
        self.default_posture = self.posture_names()?;
        Ok(())
    }

    /// Writes the implicit rule out where there is a default posture, which otherwise would not hold for it.
    pub(super) fn guard_implicit_rule(&mut self) {
        if self.default_posture.is_empty() || !self.policy.allows_all() {
            return;
        }
        let Some(any) = self.selector(Place::Source, Cow::Borrowed("*")) else { return };
        let ports = Ports::One(PortRange::ALL);
        self.policy.acls = Some(vec![Acl {
            line: 1,
            src: vec![any],
            dst: vec![AclDestination { selector: any, ports }],
            proto: None,
            src_posture: self.default_posture.clone(),
        }]);
    }
}
