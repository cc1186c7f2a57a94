//! What one fake node has been told.

use std::time::{Duration, Instant};

use crate::bits::BitSet;
use crate::reader::{News, Slot};
use crate::sample::Sample;

/// What a node knows, and when it came to know it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The node's own bit, once it has had a map.
    pub(crate) own: Option<Slot>,
    /// Its peers.
    pub(crate) peers: BitSet,
    /// When its peers last became others.
    pub(crate) changed_at: Option<Instant>,
    /// Streams that were opened.
    pub(crate) sessions: u64,
    /// Streams that have had a map.
    pub(crate) mapped: u64,
    /// The stream, by its number, that must have had a map for the node to know anything worth judging.
    pub(crate) due: u64,
    /// How long it took from the first dial to the answered registration.
    pub(crate) registered_in: Option<Duration>,
    /// The last wait whose end it saw: its number, and when.
    pub(crate) seen: Option<(u64, Instant)>,
    /// When the first and the last message came since somebody began to look, keep-alives aside.
    pub(crate) told: Option<(Instant, Instant)>,
    /// Present in nodes that are looked at closely.
    pub(crate) sample: Option<Box<Sample>>,
    pub(crate) counts: Counts,
}

/// What a node, or all of them, received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) keep_alives: u64,
    /// Bytes of messages on the wire, as they are compressed.
    pub(crate) bytes: u64,
    /// The same bytes decompressed.
    pub(crate) json_bytes: u64,
    /// Peers listed twice in one message.
    pub(crate) duplicates: u64,
    /// Changes and removals of peers that the node does not have.
    pub(crate) strays: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.keep_alives += other.keep_alives;
        self.bytes += other.bytes;
        self.json_bytes += other.json_bytes;
        self.duplicates += other.duplicates;
        self.strays += other.strays;
    }

    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            messages: self.messages - earlier.messages,
            keep_alives: self.keep_alives - earlier.keep_alives,
            bytes: self.bytes - earlier.bytes,
            json_bytes: self.json_bytes - earlier.json_bytes,
            duplicates: self.duplicates - earlier.duplicates,
            strays: self.strays - earlier.strays,
        }
    }
}

impl View {
    /// A stream begins: clients forget all that they were told before.
    pub(crate) fn begin_session(&mut self) {
        self.sessions += 1;
        self.peers.clear();
        if let Some(sample) = &mut self.sample {
            sample.begin_session();
        }
    }

    /// Whether the newest stream has had a map, and is the one that is due or a later one.
    pub(crate) fn is_current(&self) -> bool {
        self.mapped == self.sessions && self.mapped >= self.due
    }

    /// Takes in one message. `watched` is the number of the wait that [`News::Seen`] ends.
    pub(crate) fn take(&mut self, news: &[News], watched: u64, now: Instant) {
        if *news != [News::KeepAlive] {
            self.told = Some((self.told.map_or(now, |(first, _)| first), now));
        }
        let before = news.contains(&News::Full).then(|| self.peers.clone());
        let (mut changed, mut begins) = (false, false);
        let mut changed_peers = Vec::new();
        for item in news {
            match *item {
                News::KeepAlive => self.counts.keep_alives += 1,
                News::Own(slot) => {
                    self.own = Some(slot);
                    begins |= self.mapped < self.sessions;
                    self.mapped = self.sessions;
                }
                News::Full => self.peers.clear(),
                News::Peer(slot) => {
                    changed |= self.peers.insert(slot as usize);
                    changed_peers.push(slot);
                }
                News::Removed(slot) => {
                    let known = self.peers.remove(slot as usize);
                    changed |= known;
                    self.counts.strays += u64::from(!known);
                }
                News::Touched(slot) => {
                    let known = self.peers.contains(slot as usize);
                    self.counts.strays += u64::from(!known);
                }
                News::Seen if self.seen.is_none_or(|(number, _)| number != watched) => {
                    self.seen = Some((watched, now));
                }
                News::Seen => {}
            }
        }
        self.counts.duplicates += duplicates(&mut changed_peers);
        let is_same = before.is_some_and(|before| before == self.peers);
        if begins || changed && !is_same {
            self.changed_at = Some(now);
        }
    }
}

fn duplicates(slots: &mut [Slot]) -> u64 {
    slots.sort_unstable();
    slots.windows(2).map(|pair| u64::from(pair[0] == pair[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that has had these messages, one a second.
    fn told(messages: &[&[News]]) -> (View, Vec<Option<u64>>) {
        let start = Instant::now();
        let mut view = View::default();
        view.begin_session();
        let mut changed = Vec::new();
        for (second, news) in (0..).zip(messages) {
            view.take(news, 1, start + Duration::from_secs(second));
            changed.push(view.changed_at.map(|at| at.duration_since(start).as_secs()));
        }
        (view, changed)
    }

    #[test]
    fn only_other_peers_are_a_change() {
        let first = [News::Own(0), News::Full, News::Peer(1), News::Peer(2)];
        let (view, changed) = told(&[
            &first,
            &[News::Full, News::Peer(2), News::Peer(1)],
            &[News::Peer(1), News::Touched(2), News::KeepAlive],
            &[News::Peer(3)],
            &[News::Removed(3)],
            &[News::Full, News::Peer(1)],
        ]);
        assert_eq!(changed, [Some(0), Some(0), Some(0), Some(3), Some(4), Some(5)]);
        assert_eq!(view.peers, [1].into_iter().collect());
        assert!(view.is_current());
        assert_eq!(
            (view.counts.duplicates, view.counts.strays, view.counts.keep_alives),
            (0, 0, 1)
        );
    }

    #[test]
    fn first_map_is_a_change_though_nobody_is_in_it() {
        let (view, changed) = told(&[&[News::KeepAlive], &[News::Own(0)]]);
        assert_eq!(changed, [None, Some(1)]);
        assert_eq!(view.peers, BitSet::default());
    }

    #[test]
    fn duplicates_and_strays_are_counted() {
        let (view, _) = told(&[
            &[News::Own(0), News::Full, News::Peer(1), News::Peer(1)],
            &[News::Touched(1), News::Touched(2), News::Removed(2)],
        ]);
        assert_eq!((view.counts.duplicates, view.counts.strays), (1, 2));
    }

    #[test]
    fn first_sight_counts() {
        let (view, _) = told(&[&[News::Own(0)], &[News::Seen], &[News::Seen]]);
        let (number, at) = view.seen.unwrap();
        assert_eq!((number, at), (1, view.changed_at.unwrap() + Duration::from_secs(1)));
    }

    #[test]
    fn new_stream_must_have_its_map() {
        let (mut view, _) = told(&[&[News::Own(0)]]);
        view.due = 2;
        assert!(!view.is_current());
        view.begin_session();
        assert!(!view.is_current());
        view.take(&[News::Own(0)], 0, Instant::now());
        assert!(view.is_current());
    }
}
