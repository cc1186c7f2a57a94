//! The sources of filter rules, as text: the IP-set cache.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use foldhash::HashMap;

use crate::policy::{Policy, Selector};
use crate::program::Atom;

/// How many texts of a source are kept: streams ask for the one they told and the newest.
const TEXTS_MAX: usize = 3;

/// A [`SourceKey`] of a program, as an index.
pub(crate) type SourceKeyId = u32;

/// Whose packets a rule lets in. Rules with the same sources share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    /// `autogroup:danger-all` is among them.
    pub(crate) is_danger_all: bool,
    /// `*` is among them.
    pub(crate) is_everybody: bool,
    /// They were written as destinations: each stands by itself, addresses are not joined.
    pub(crate) is_reversed: bool,
    /// All of them, sorted.
    pub(crate) atoms: Arc<[Atom]>,
}

impl SourceKey {
    /// The sources of a rule.
    pub(crate) fn of_sources(atoms: &[Atom], policy: &Policy) -> Self {
        let is = |wanted: &Selector| {
            atoms.iter().any(|atom| policy.selectors.get(*atom as usize) == Some(wanted))
        };
        Self {
            is_danger_all: is(&Selector::DangerAll),
            is_everybody: is(&Selector::Any),
            is_reversed: false,
            atoms: atoms.into(),
        }
    }

    /// The destinations of a rule, as sources of the other direction.
    pub(crate) fn of_destinations(atoms: &[Atom], policy: &Policy) -> Self {
        Self { is_reversed: true, ..Self::of_sources(atoms, policy) }
    }

    /// `*` alone, where a policy does not write it.
    pub(crate) fn everybody() -> Self {
        Self { is_danger_all: false, is_everybody: true, is_reversed: false, atoms: Arc::new([]) }
    }
}

/// The distinct sources of a program.
#[derive(Debug, Default)]
pub(crate) struct SourceKeys {
    keys: Vec<SourceKey>,
    known: HashMap<SourceKey, SourceKeyId>,
}

impl SourceKeys {
    pub(crate) fn intern(&mut self, key: SourceKey) -> SourceKeyId {
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = SourceKeyId::try_from(self.keys.len()).expect("invariant: texts are bounded");
        self.keys.push(key.clone());
        self.known.insert(key, id);
        id
    }

    pub(crate) fn get(&self, id: SourceKeyId) -> &SourceKey {
        &self.keys[id as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SourceKeyId> + Clone + use<> {
        let count = SourceKeyId::try_from(self.keys.len()).expect("invariant: texts are bounded");
        0..count
    }

    /// The id of sources, if they are among these.
    pub(crate) fn find(&self, key: &SourceKey) -> Option<SourceKeyId> {
        self.known.get(key).copied()
    }
}

/// The `SrcIPs` of a rule: sorted as text, each once.
pub(crate) type SourceText = Arc<[Arc<str>]>;

/// A text and the stamp of what it was made of.
type Stamped = (u64, SourceText);

/// Texts by key. A stamp names one state of everything that a text is made of, so that snapshots of different
/// ages share the cache.
#[derive(Debug)]
pub(crate) struct SourceCache {
    texts: Vec<Mutex<Vec<Stamped>>>,
    names: Vec<OnceLock<u64>>,
}

impl SourceCache {
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            texts: (0..keys).map(|_| Mutex::default()).collect(),
            names: (0..keys).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Takes over what is known of the same sources in an earlier program: pairs of their numbers there and here. The
    /// stamps of this program have to go on after those of the earlier one.
    pub(crate) fn take_over(
        &self,
        earlier: &Self,
        same: impl Iterator<Item = (SourceKeyId, SourceKeyId)>,
    ) {
        for (was, is) in same {
            let known = earlier.texts(was).clone();
            *self.texts(is) = known;
            if let Some(name) = earlier.names[was as usize].get() {
                self.name(is, || *name);
            }
        }
    }

    /// The name of a key as a hash, made by `make` if it is not known.
    pub(crate) fn name(&self, key: SourceKeyId, make: impl FnOnce() -> u64) -> u64 {
        *self.names[key as usize].get_or_init(make)
    }

    /// The text of a key at a stamp, made by `make` if it is not known.
    pub(crate) fn get_or_make(
        &self,
        key: SourceKeyId,
        stamp: u64,
        make: impl FnOnce() -> SourceText,
    ) -> SourceText {
        let mut texts = self.texts(key);
        if let Some((_, text)) = texts.iter().find(|(known, _)| *known == stamp) {
            return text.clone();
        }
        if texts.len() == TEXTS_MAX {
            texts.remove(0);
        }
        let text = make();
        texts.push((stamp, text.clone()));
        text
    }

    fn texts(&self, key: SourceKeyId) -> MutexGuard<'_, Vec<Stamped>> {
        self.texts[key as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
