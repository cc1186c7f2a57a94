//! `ipsets`: named sets of addresses, worked out to ranges.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::selectors::parse_prefix;
use super::{Decoder, Step};
use crate::hujson::Read;
use crate::problem::{Refusal, nearest, quoted};
use crate::program::INTERNET;
use crate::ranges::IpRanges;

/// How many addresses ranges all sets together may be put together from, those of sets within sets counted each time.
const RANGES_MAX: usize = 50_000;

/// How many sets there may be.
const SETS_MAX: usize = 10_000;

/// How often one set may change between adding and removing: each change costs a pass over the set.
const TURNS_MAX: usize = 100;

/// How deep sets may stand in sets.
const DEPTH_MAX: usize = 32;

/// A set as it is written.
struct Written<'a> {
    path: Vec<Step<'a>>,
    entries: Vec<Entry<'a>>,
    is_begun: bool,
}

/// `add x`, `remove x`, or `x`.
struct Entry<'a> {
    offset: usize,
    index: usize,
    is_removal: bool,
    what: Cow<'a, str>,
}

/// Addresses that wait to be added or removed together.
#[derive(Default)]
struct Run {
    prefixes: Vec<IpNet>,
    sets: Vec<IpRanges>,
    is_removal: bool,
    turns: usize,
}

/// Sets while they are worked out.
struct Sets<'a> {
    written: BTreeMap<Cow<'a, str>, Written<'a>>,
    ranges_left: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn ipsets(&mut self) -> Read<()> {
        let mut written: BTreeMap<Cow<'a, str>, Written<'a>> = BTreeMap::new();
        let mut ranges_left = RANGES_MAX;
        self.map(|decoder, name| {
            if !name.starts_with("ipset:") {
                decoder.refuse(format!("ipset must start with 'ipset:', got: {}", quoted(&name)));
            }
            if written.contains_key(&name) {
                decoder.refuse_duplicate(&name);
            }
            if written.len() == SETS_MAX {
                decoder.refuse(format!("there are more than {SETS_MAX} ipsets"));
                return decoder.reader.skip();
            }
            let entries = decoder.ipset_entries(&mut ranges_left)?;
            let path = decoder.path.clone();
            written.insert(name, Written { path, entries, is_begun: false });
            Ok(())
        })?;
        let names: Vec<_> = written.keys().cloned().collect();
        let mut sets = Sets { written, ranges_left };
        for name in names {
            self.work_out(&mut sets, &name, 0);
        }
        Ok(())
    }

    /// What a set is written as. An entry counts as one range, of which `left` more may be.
    fn ipset_entries(&mut self, left: &mut usize) -> Read<Vec<Entry<'a>>> {
        let mut entries = Vec::new();
        let mut index = 0;
        self.list(|decoder| {
            index += 1;
            let Some(text) = decoder.text()? else { return Ok(()) };
            let Some(rest) = left.checked_sub(1) else {
                decoder.refuse(too_many_ranges());
                return Ok(());
            };
            *left = rest;
            let (is_removal, what) = operation(text);
            let offset = decoder.reader.token();
            entries.push(Entry { offset, index: index - 1, is_removal, what });
            Ok(())
        })?;
        Ok(entries)
    }

    /// Works a set out, and first those that it names.
    fn work_out(&mut self, sets: &mut Sets<'a>, name: &str, depth: usize) {
        let Some(written) = sets.written.get_mut(name) else { return };
        if std::mem::replace(&mut written.is_begun, true) {
            return;
        }
        let entries = std::mem::take(&mut written.entries);
        let path = std::mem::replace(&mut self.path, written.path.clone());
        let mut set = IpRanges::default();
        let mut run = Run::default();
        for entry in entries {
            if entry.is_removal != run.is_removal {
                run.turn(&mut set);
            }
            self.path.push(Step::Index(entry.index));
            if let Err(refusal) = self.ipset_entry(sets, &entry, &mut run, depth) {
                self.refuse_at(entry.offset, refusal);
            }
            self.path.pop();
        }
        run.turn(&mut set);
        self.policy.ipsets.insert(Arc::from(name), set);
        self.path = path;
    }

    /// Puts what an entry names to the run.
    fn ipset_entry(
        &mut self,
        sets: &mut Sets<'a>,
        entry: &Entry<'a>,
        run: &mut Run,
        depth: usize,
    ) -> Result<(), Refusal> {
        let what = entry.what.as_ref();
        if run.turns > TURNS_MAX {
            return Err(format!(
                "a set changes between adding and removing at most {TURNS_MAX} times"
            )
            .into());
        }
        let mut more = 0;
        if let Some(prefix) = parse_prefix(what) {
            run.prefixes.push(prefix);
        } else if what == "autogroup:internet" {
            more = INTERNET.ranges().count();
            run.sets.push(INTERNET.clone());
        } else if what.starts_with("ipset:") {
            let set = self.ipset_within(sets, what, depth)?;
            more = set.ranges().count();
            run.sets.push(set);
        } else {
            run.prefixes.push(self.host_of_set(what)?);
        }
        if let Some(left) = sets.ranges_left.checked_sub(more) {
            sets.ranges_left = left;
            return Ok(());
        }
        *run = Run { turns: TURNS_MAX + 1, is_removal: run.is_removal, ..Run::default() };
        Err(too_many_ranges().into())
    }

    /// A set that another names.
    fn ipset_within(
        &mut self,
        sets: &mut Sets<'a>,
        name: &str,
        depth: usize,
    ) -> Result<IpRanges, Refusal> {
        if !sets.written.contains_key(name) {
            let suggestion = nearest(name, sets.written.keys().map(AsRef::as_ref));
            let message = format!("ipset not defined in policy: {}", quoted(name)).into();
            return Err(Refusal { message, suggestion });
        }
        if depth == DEPTH_MAX {
            return Err(format!("sets stand in sets deeper than {DEPTH_MAX}").into());
        }
        self.work_out(sets, name, depth + 1);
        match self.policy.ipsets.get(name) {
            Some(set) => Ok(set.clone()),
            None => Err(format!("{} contains itself", quoted(name)).into()),
        }
    }

    fn host_of_set(&self, name: &str) -> Result<IpNet, Refusal> {
        let hosts = &self.policy.hosts;
        hosts.get(name).copied().ok_or_else(|| Refusal {
            message: format!("host not defined in policy: {}", quoted(name)).into(),
            suggestion: nearest(name, hosts.keys().map(AsRef::as_ref)),
        })
    }
}

fn too_many_ranges() -> String {
    format!("the sets are put together from more than {RANGES_MAX} ranges")
}

impl Run {
    /// Adds or removes what has gathered, and begins the opposite.
    fn turn(&mut self, set: &mut IpRanges) {
        let mut gathered: IpRanges = self.prefixes.drain(..).collect();
        for other in self.sets.drain(..) {
            gathered.extend(&other);
        }
        if self.is_removal {
            set.remove(&gathered);
        } else {
            set.extend(&gathered);
        }
        self.is_removal = !self.is_removal;
        self.turns += 1;
    }
}

/// Whether an entry removes, and what it names.
fn operation(text: Cow<'_, str>) -> (bool, Cow<'_, str>) {
    let split = |text: &str| match text.trim().split_once(char::is_whitespace) {
        Some(("add", _)) => (false, 3),
        Some(("remove", _)) => (true, 6),
        Some(_) | None => (false, 0),
    };
    match text {
        Cow::Borrowed(text) => {
            let (is_removal, length) = split(text);
            (is_removal, Cow::Borrowed(text.trim()[length..].trim()))
        }
        Cow::Owned(text) => {
            let (is_removal, length) = split(&text);
            (is_removal, Cow::Owned(text.trim()[length..].trim().to_owned()))
        }
    }
}
