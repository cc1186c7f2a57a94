//! From HuJSON text to a checked [`Policy`], or to all that is wrong with it.
//!
//! The text is read twice. The first reading only finds the sections, going by brackets. The second decodes section by
//! section, definitions (groups, hosts, tags, …) before what uses them, so that each name can be looked up where it
//! stands, and checks the syntax; no tree is built in between. Of a text with a syntax error that error is the only
//! problem; a third reading finds the first one then.
//!
//! Source: the policy syntax reference at <https://tailscale.com/docs/reference/syntax/policy-file>; wording of errors
//! after the answers of the service.

mod acls;
mod assertions;
mod attributes;
mod definitions;
mod duration;
mod grants;
mod ipsets;
mod ports;
mod postures;
mod selectors;
mod ssh;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::format::newlines;
use foldhash::{HashSet, HashSetExt};

use crate::hujson::{Kind, Read, Reader, SyntaxError};
use crate::policy::{OneCgnatRoute, Policy};
use crate::problem::{Collector, Problems, Refusal, nearest, quoted};
pub(crate) use ports::parse_protocol;
use selectors::Names;

pub(crate) use ports::split_destination;
pub(crate) use selectors::parse_selector;

/// How long a policy may be, in bytes.
pub const POLICY_BYTES_MAX: usize = 4 << 20;

/// How many entries `acls`, `grants`, `ssh`, `nodeAttrs`, `tests` and `sshTests` may each have.
pub const RULES_MAX: usize = 20_000;

/// How many entries they may have together.
const ALL_RULES_MAX: usize = 50_000;

/// How many destinations of `acls` and entries of `ip` in `grants` a policy may have in all; an entry of `ip` counts
/// once for each destination of its grant.
const RULE_ENTRIES_MAX: usize = 150_000;

/// How many different selectors a policy may name.
const SELECTORS_MAX: usize = 1 << 16;

/// From which length on room for a list is made by counting instead of doubling, which could take three times the room.
const COUNTED_FROM: usize = 256;

/// Texts up to this length are kept once: of longer ones the text itself has paid for the room.
const SHORT_BYTES_MAX: usize = 2;

/// The sections of a policy.
const SECTIONS: &[&str] = &[
    "acls",
    "grants",
    "groups",
    "hosts",
    "ipsets",
    "tagOwners",
    "autoApprovers",
    "ssh",
    "nodeAttrs",
    "postures",
    "defaultSrcPosture",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "disableIPv4",
    "OneCGNATRoute",
    "derpMap",
];

impl Policy {
    /// Reads a policy. Of an empty text it is the default one, in which everybody reaches everybody.
    ///
    /// `domains` are the login domains of the tailnet, which `user:*@domain` and `localpart:*@domain` in `ssh` have to
    /// be among; none leaves them unchecked.
    ///
    /// # Errors
    /// All problems that there are, in the order of the text; a syntax error alone.
    pub fn parse(text: &str, domains: Option<&[String]>) -> Result<Self, Problems> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut decoder = Decoder::new(text, domains);
        if text.len() > POLICY_BYTES_MAX {
            decoder.refuse_at(0, "the policy is longer than 4 MiB");
        } else if let Err(error) = decoder.policy() {
            let error = check_syntax(text).err().unwrap_or(error);
            decoder.problems = Collector::default();
            decoder.path.clear();
            decoder.refuse_at(error.offset, error.message);
        }
        if decoder.problems.is_empty() {
            decoder.policy.selectors = decoder.names.into_selectors();
            return Ok(decoder.policy);
        }
        Err(decoder.problems.finish(text))
    }
}

/// The first syntax error of a text.
pub(crate) fn check_syntax(text: &str) -> Read<()> {
    let mut reader = Reader::new(text);
    reader.skip()?;
    reader.end()
}

/// One step of the path of a field.
#[derive(Debug, Clone)]
enum Step<'a> {
    /// A member of a name that the language knows.
    Field(&'static str),
    /// A member of a name that the author chose.
    Key(Cow<'a, str>),
    /// An element.
    Index(usize),
}

/// Decodes one text.
struct Decoder<'a> {
    text: &'a str,
    domains: Option<&'a [String]>,
    reader: Reader<'a>,
    path: Vec<Step<'a>>,
    problems: Collector,
    policy: Policy,
    names: Names<'a>,
    default_posture: Vec<Arc<str>>,
    short_texts: HashSet<Arc<str>>,
    rules: usize,
    rule_entries: usize,
    /// An offset and its line, from 1: lines are counted onwards from there.
    line: (usize, u32),
}

impl<'a> Decoder<'a> {
    fn new(text: &'a str, domains: Option<&'a [String]>) -> Self {
        Self {
            text,
            domains,
            reader: Reader::new(text),
            path: Vec::new(),
            problems: Collector::default(),
            policy: Policy::default(),
            names: Names::default(),
            default_posture: Vec::new(),
            short_texts: HashSet::new(),
            rules: 0,
            rule_entries: 0,
            line: (0, 1),
        }
    }

    fn policy(&mut self) -> Read<()> {
        let sections = self.sections()?;
        let mut section = |name: &'static str, decode: fn(&mut Self) -> Read<()>| -> Read<()> {
            let index = SECTIONS.iter().position(|section| *section == name);
            let Some((start, end)) = index.and_then(|index| sections[index]) else {
                return Ok(());
            };
            self.reader = Reader::at_value(self.text, start);
            self.within(Step::Field(name), decode)?;
            self.reader.has_come_to(end)
        };
        section("groups", Self::groups)?;
        section("hosts", Self::hosts)?;
        section("tagOwners", Self::tags)?;
        section("tagOwners", Self::tag_owners)?;
        section("ipsets", Self::ipsets)?;
        section("postures", Self::postures)?;
        section("defaultSrcPosture", Self::default_src_posture)?;
        section("acls", Self::acls)?;
        section("grants", Self::grants)?;
        section("ssh", Self::ssh)?;
        section("nodeAttrs", Self::node_attrs)?;
        section("autoApprovers", Self::auto_approvers)?;
        section("tests", Self::tests)?;
        section("sshTests", Self::ssh_tests)?;
        section("randomizeClientPort", |decoder| {
            decoder.flag().map(|flag| decoder.policy.randomize_client_port = flag)
        })?;
        section("disableIPv4", |decoder| {
            decoder.flag().map(|flag| decoder.policy.disable_ipv4 = flag)
        })?;
        section("OneCGNATRoute", Self::one_cgnat_route)?;
        section("derpMap", |decoder| {
            decoder.refuse(
                "relays are set up in the server's configuration, under `derp`, not in the policy",
            );
            decoder.reader.skip()
        })?;
        self.guard_implicit_rule();
        Ok(())
    }

    /// Where each section begins and ends, in the order of [`SECTIONS`].
    fn sections(&mut self) -> Read<Vec<Option<(usize, usize)>>> {
        let mut sections = vec![None; SECTIONS.len()];
        self.fields(SECTIONS, |decoder, name| {
            let kind = decoder.reader.kind()?;
            let start = decoder.reader.token();
            if matches!(kind, Kind::Object | Kind::List) {
                decoder.reader.leap();
            } else {
                decoder.reader.skip()?;
            }
            let index = SECTIONS.iter().position(|section| *section == name);
            if let Some(section) = index.and_then(|index| sections.get_mut(index)) {
                *section = Some((start, decoder.reader.offset()));
            }
            Ok(())
        })?;
        self.reader.end()?;
        Ok(sections)
    }

    fn one_cgnat_route(&mut self) -> Read<()> {
        let written = self.text()?;
        self.policy.one_cgnat_route = match written.as_deref() {
            None | Some("") => None,
            Some("mac-always") => Some(OneCgnatRoute::MacAlways),
            Some("mac-never") => Some(OneCgnatRoute::MacNever),
            Some(other) => {
                let message =
                    format!("{} is neither \"mac-always\" nor \"mac-never\"", quoted(other));
                self.refuse(message);
                None
            }
        };
        Ok(())
    }
}

/// Values of any kind.
impl<'a> Decoder<'a> {
    /// Decodes something one step further down the path.
    fn within<T>(&mut self, step: Step<'a>, decode: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let value = decode(self);
        self.path.pop();
        value
    }

    /// Whether the next value is of a kind. If it is not, says so and passes over it.
    fn expect(&mut self, kind: Kind) -> Read<bool> {
        let found = self.reader.kind()?;
        if found == kind {
            return Ok(true);
        }
        self.refuse(format!("this has to be {}, and it is {}", kind.name(), found.name()));
        self.reader.skip()?;
        Ok(false)
    }

    /// An object whose members have names that the language knows; case does not count, and null is absent.
    fn fields(
        &mut self,
        known: &'static [&'static str],
        each: impl FnMut(&mut Self, &'static str) -> Read<()>,
    ) -> Read<()> {
        self.fields_but(known, |_| false, each)
    }

    /// As [`Self::fields`], passing over members of some other names.
    fn fields_but(
        &mut self,
        known: &'static [&'static str],
        is_ignored: impl Fn(&str) -> bool,
        mut each: impl FnMut(&mut Self, &'static str) -> Read<()>,
    ) -> Read<()> {
        if !self.expect(Kind::Object)? {
            return Ok(());
        }
        let mut seen = 0_u32;
        self.reader.begin_object()?;
        while let Some(name) = self.reader.next_member()? {
            let Some(index) = position(known, &name) else {
                if !is_ignored(&name) {
                    self.refuse(Refusal {
                        message: format!("unknown field: {}", quoted(&name)).into(),
                        suggestion: nearest(&name, known.iter().copied()),
                    });
                }
                self.reader.skip()?;
                continue;
            };
            let is_repeated = seen & 1 << index != 0;
            seen |= 1 << index;
            if is_repeated {
                self.refuse_duplicate(&name);
            }
            if is_repeated || self.reader.kind()? == Kind::Null {
                self.reader.skip()?;
                continue;
            }
            self.within(Step::Field(known[index]), |decoder| each(decoder, known[index]))?;
        }
        Ok(())
    }

    /// An object whose members have names that the author chose; `each` is handed the name and where it stands.
    fn map(&mut self, mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Read<()>) -> Read<()> {
        if !self.expect(Kind::Object)? {
            return Ok(());
        }
        self.reader.begin_object()?;
        while let Some(name) = self.reader.next_member()? {
            self.within(Step::Key(name.clone()), |decoder| each(decoder, name))?;
        }
        Ok(())
    }

    /// A list.
    fn list(&mut self, mut each: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        if !self.expect(Kind::List)? {
            return Ok(());
        }
        self.reader.begin_list()?;
        self.path.push(Step::Index(0));
        while self.reader.next_element()? {
            each(self)?;
            if let Some(Step::Index(index)) = self.path.last_mut() {
                *index += 1;
            }
        }
        self.path.pop();
        Ok(())
    }

    /// A list of rules; what is beyond the limit is passed over, and where there are problems, rules are read but not
    /// kept. `each` is handed the line.
    fn rules<T>(&mut self, mut each: impl FnMut(&mut Self, u32) -> Read<T>) -> Read<Vec<T>> {
        let mut count = 0;
        let mut rules = Vec::new();
        self.list(|decoder| {
            count += 1;
            decoder.reader.kind()?;
            decoder.rules += 1;
            if count == RULES_MAX + 1 {
                decoder.refuse(format!("a list of rules has at most {RULES_MAX} entries"));
            } else if decoder.rules == ALL_RULES_MAX + 1 {
                decoder.refuse(format!(
                    "the lists of rules together have at most {ALL_RULES_MAX} entries"
                ));
            }
            if count > RULES_MAX || decoder.rules > ALL_RULES_MAX {
                return decoder.reader.skip();
            }
            let line = decoder.line_of(decoder.reader.token());
            let rule = each(decoder, line)?;
            if decoder.problems.is_empty() {
                rules.push(rule);
            }
            Ok(())
        })?;
        rules.shrink_to_fit();
        Ok(rules)
    }

    /// A list of what `each` makes of its elements.
    fn collect<T>(&mut self, mut each: impl FnMut(&mut Self) -> Read<Option<T>>) -> Read<Vec<T>> {
        let mut found = Vec::new();
        self.list(|decoder| {
            let Some(element) = each(decoder)? else { return Ok(()) };
            if found.len() == found.capacity() {
                match found.len() {
                    COUNTED_FROM.. => {
                        found.reserve_exact(decoder.reader.count_elements()? + 1);
                    }
                    0 => found.reserve_exact(2),
                    _ => found.reserve(1),
                }
            }
            found.push(element);
            Ok(())
        })?;
        Ok(found)
    }

    /// A list of what `each` makes of texts.
    fn texts<T>(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Option<T>,
    ) -> Read<Vec<T>> {
        self.collect(|decoder| Ok(decoder.text()?.and_then(|text| each(decoder, text))))
    }

    /// A list of texts that are kept as they are.
    fn plain_texts(&mut self) -> Read<Vec<Arc<str>>> {
        self.texts(|decoder, text| Some(decoder.kept(&text, SHORT_BYTES_MAX)))
    }

    /// A text to keep; up to a length it is kept once.
    fn kept(&mut self, text: &str, short_bytes_max: usize) -> Arc<str> {
        if text.len() > short_bytes_max {
            return text.into();
        }
        if let Some(known) = self.short_texts.get(text) {
            return Arc::clone(known);
        }
        let kept: Arc<str> = text.into();
        self.short_texts.insert(Arc::clone(&kept));
        kept
    }

    /// Counts a destination or an entry of `ip`; whether there is still room for it.
    fn count_rule_entry(&mut self) -> bool {
        self.count_rule_entries(1)
    }

    /// The same of several.
    fn count_rule_entries(&mut self, count: usize) -> bool {
        let before = self.rule_entries;
        self.rule_entries = before.saturating_add(count);
        let has_room = self.rule_entries <= RULE_ENTRIES_MAX;
        if !has_room && before <= RULE_ENTRIES_MAX {
            self.refuse(format!("the rules together have more than {RULE_ENTRIES_MAX} destinations and entries of `ip`"));
        }
        has_room
    }

    /// A text; none if it is something else, which has been refused then.
    fn text(&mut self) -> Read<Option<Cow<'a, str>>> {
        if self.expect(Kind::Text)? { self.reader.text().map(Some) } else { Ok(None) }
    }

    /// True or false; false if it is something else, which has been refused then.
    fn flag(&mut self) -> Read<bool> {
        Ok(self.expect(Kind::Bool)? && self.reader.flag()?)
    }

    /// The line of an offset, from 1. Cheap while offsets grow.
    fn line_of(&mut self, offset: usize) -> u32 {
        let (mut from, mut line) = self.line;
        if offset < from {
            (from, line) = (0, 1);
        }
        let count = newlines(&self.text[from..offset]);
        line = line.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.line = (offset, line);
        line
    }
}

/// Problems.
impl Decoder<'_> {
    /// Keeps a problem of the value or name that was looked at last.
    fn refuse(&mut self, refusal: impl Into<Refusal>) {
        self.refuse_at(self.reader.token(), refusal);
    }

    /// Keeps a problem of what stands at an offset, at the present path.
    fn refuse_at(&mut self, offset: usize, refusal: impl Into<Refusal>) {
        if self.problems.has_room() {
            let path = self.path();
            self.problems.push(offset, path, refusal.into());
        } else {
            self.problems.count();
        }
    }

    fn refuse_duplicate(&mut self, name: &str) {
        self.refuse(format!("duplicate member: {} stands here already", quoted(name)));
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            // A writer into a string cannot fail.
            let _ = match step {
                Step::Field(name) if path.is_empty() => path.write_str(name),
                Step::Field(name) => write!(path, ".{name}"),
                Step::Key(name) => write!(path, "[{}]", quoted(name)),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        path
    }
}

/// The index of a name among those known, whatever its case.
fn position(known: &[&str], name: &str) -> Option<usize> {
    let exact = known.iter().position(|known| *known == name);
    exact.or_else(|| known.iter().position(|known| known.eq_ignore_ascii_case(name)))
}

impl From<Box<SyntaxError>> for Refusal {
    fn from(error: Box<SyntaxError>) -> Self {
        error.message.into()
    }
}

#[cfg(test)]
mod tests;
