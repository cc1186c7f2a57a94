//! `grants`.

use super::Decoder;
use super::ports::parse_protocol_ports;
use super::selectors::Place;
use crate::hujson::{Kind, Read};
use crate::policy::{AppCapabilities, Grant, IpProtocolPorts, RawJson, Selector, SelectorId};
use crate::problem::quoted;

const FIELDS: &[&str] = &["src", "dst", "ip", "app", "via", "srcPosture"];

/// JSON values up to this length are kept once.
const SHORT_JSON_BYTES_MAX: usize = 3;

/// How many capabilities one `app` may have.
const CAPABILITIES_MAX: usize = 10_000;

/// The capabilities of Tailscale itself that a grant may give.
const OWN_CAPABILITIES: [&str; 6] = [
    "tailscale.com/cap/drive",
    "tailscale.com/cap/relay",
    "tailscale.com/cap/webui",
    "tailscale.com/cap/kubernetes",
    "tailscale.com/cap/tsidp",
    "tailscale.com/cap/secrets",
];

impl Decoder<'_> {
    pub(super) fn grants(&mut self) -> Read<()> {
        let grants = self.rules(Self::grant)?;
        self.policy.grants = Some(grants);
        Ok(())
    }

    fn grant(&mut self, line: u32) -> Read<Grant> {
        let start = self.reader.token();
        let is_object = self.reader.kind()? == Kind::Object;
        let mut grant = Grant {
            line,
            src: Vec::new(),
            dst: Vec::new(),
            ip: Vec::new(),
            app: Vec::new(),
            via: Vec::new(),
            src_posture: Vec::new(),
        };
        let mut self_at = None;
        let mut posture = None;
        let mut entries = 0;
        self.fields(FIELDS, |decoder, name| {
            match name {
                "src" => grant.src = decoder.selectors(Place::Source)?,
                "dst" => grant.dst = decoder.grant_destinations(&mut self_at)?,
                "ip" => grant.ip = decoder.protocol_ports(&mut entries)?,
                "app" => {
                    grant.app = decoder.capabilities(check_capability_name, &mut entries)?;
                }
                "via" => grant.via = decoder.selectors(Place::Via)?,
                _ => posture = Some(decoder.posture_names()?),
            }
            Ok(())
        })?;
        if is_object {
            grant.src_posture = self.posture_or_default(posture);
            let others = grant.dst.len().saturating_sub(1);
            self.count_rule_entries(others.saturating_mul(grant.ip.len()));
            self.check_grant(start, &grant, entries, self_at);
        }
        Ok(grant)
    }

    fn check_grant(&mut self, start: usize, grant: &Grant, entries: usize, self_at: Option<usize>) {
        if entries == 0 {
            self.refuse_at(start, "ip and app can not both be empty");
        }
        let is_internet = |id: &SelectorId| *self.names.selector(*id) == Selector::Internet;
        if !grant.app.is_empty() && grant.dst.iter().any(is_internet) {
            self.refuse_at(start, "cannot use app grants with autogroup:internet");
        }
        if let Some(offset) = self_at {
            self.check_self(offset, &grant.src, false);
        }
    }

    /// The destinations; `self_at` becomes the offset of the first `autogroup:self`.
    fn grant_destinations(&mut self, self_at: &mut Option<usize>) -> Read<Vec<SelectorId>> {
        self.texts(|decoder, text| {
            let id = decoder.selector(Place::GrantDestination, text.clone())?;
            let selector = decoder.names.selector(id);
            if *selector == Selector::SelfNodes {
                self_at.get_or_insert(decoder.reader.token());
            }
            if matches!(selector, Selector::Prefix(prefix) if prefix.prefix_len() == 0) {
                decoder.refuse(format!(
                    "dst {}: to allow all IP addresses, use \"*\" or \"autogroup:internet\"",
                    quoted(text.trim())
                ));
            }
            Some(id)
        })
    }

    /// `ip`; `entries` counts what is there, right or wrong.
    fn protocol_ports(&mut self, entries: &mut usize) -> Read<Vec<IpProtocolPorts>> {
        self.texts(|decoder, text| {
            *entries += 1;
            if !decoder.count_rule_entry() {
                return None;
            }
            parse_protocol_ports(&text).map_err(|error| decoder.refuse(error)).ok()
        })
    }

    /// `app`: capabilities with lists of values; `entries` counts them.
    pub(super) fn capabilities(
        &mut self,
        check: fn(&str) -> Result<(), &'static str>,
        entries: &mut usize,
    ) -> Read<AppCapabilities> {
        let mut capabilities = AppCapabilities::new();
        let mut seen = std::collections::HashSet::new();
        self.map(|decoder, name| {
            *entries += 1;
            if *entries > CAPABILITIES_MAX {
                if *entries == CAPABILITIES_MAX + 1 {
                    decoder.refuse(format!("an app has at most {CAPABILITIES_MAX} capabilities"));
                }
                return decoder.reader.skip();
            }
            if let Err(error) = check(&name) {
                decoder.refuse(error);
            }
            if !seen.insert(name.clone()) {
                decoder.refuse_duplicate(&name);
            }
            let values = if decoder.reader.kind()? == Kind::Null {
                decoder.reader.skip()?;
                Vec::new()
            } else {
                decoder.collect(|decoder| {
                    let mut value = String::new();
                    decoder.reader.compact(&mut value)?;
                    Ok(Some(RawJson(decoder.kept(&value, SHORT_JSON_BYTES_MAX))))
                })?
            };
            capabilities.push((name.into(), values));
            Ok(())
        })?;
        capabilities.shrink_to_fit();
        Ok(capabilities)
    }
}

fn check_capability_name(name: &str) -> Result<(), &'static str> {
    if name.contains("://") || !name.contains('/') {
        return Err("capability name must have the form {domain}/{path}");
    }
    if name.starts_with("tailscale.com/") && !OWN_CAPABILITIES.contains(&name) {
        return Err("capability name must not be in the tailscale.com domain");
    }
    Ok(())
}
