//! Who the fake nodes are, and whom each of them should see: read from the command line or from two files.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bits::BitSet;

/// One fake node, before it has any keys of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The preauth key that it registers with.
    pub(crate) auth_key: String,
    pub(crate) hostname: String,
    /// Tags that it asks for, `tag:` included.
    pub(crate) tags: Vec<String>,
}

/// Makes `count` nodes that share one key.
pub(crate) fn sharing(auth_key: &str, count: usize) -> Vec<Entry> {
    let entry = |index| Entry {
        auth_key: auth_key.to_owned(),
        hostname: format!("h{index:05}"),
        tags: Vec::new(),
    };
    (1..=count).map(entry).collect()
}

/// Reads a file of nodes: `KEY HOSTNAME [TAG,TAG...]` a line. Empty lines and those that begin with `#` are nothing.
pub(crate) fn read_keys(path: &Path) -> Result<Vec<Entry>> {
    parse_keys(&read(path)?).with_context(|| format!("{} is no file of keys", path.display()))
}

fn parse_keys(text: &str) -> Result<Vec<Entry>> {
    let mut hostnames = BTreeSet::new();
    let mut entries = Vec::new();
    for (number, words) in lines(text) {
        let [auth_key, hostname, tags @ ..] = &words[..] else {
            bail!("line {number}: not KEY HOSTNAME [TAG,TAG...]");
        };
        ensure!(tags.len() <= 1, "line {number}: tags are separated by commas, without blanks");
        ensure!(hostnames.insert(*hostname), "line {number}: {hostname} is there twice");
        let tags = tags.iter().flat_map(|tags| tags.split(',')).map(str::to_owned).collect();
        entries.push(Entry {
            auth_key: (*auth_key).to_owned(),
            hostname: (*hostname).to_owned(),
            tags,
        });
    }
    Ok(entries)
}

/// Whom each node should see of those that have joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Everybody else.
    All,
    /// These: for each node the positions of its peers in the roster.
    Peers(Vec<Vec<usize>>),
}

impl Expected {
    /// Reads a file of peers: `HOSTNAME PEER PEER ...` a line. A node without a line sees nobody; names that are not
    /// in the roster are left out, for a file may tell of more nodes than a run has.
    pub(crate) fn read(path: &Path, roster: &[Entry]) -> Result<Self> {
        Self::parse(&read(path)?, roster)
            .with_context(|| format!("{} is no file of peers", path.display()))
    }

    fn parse(text: &str, roster: &[Entry]) -> Result<Self> {
        let hostnames = roster.iter().enumerate();
        let positions: HashMap<_, _> =
            hostnames.map(|(position, entry)| (&*entry.hostname, position)).collect();
        let mut peers = vec![Vec::new(); roster.len()];
        let mut known = 0;
        for (number, words) in lines(text) {
            let Some(&viewer) = positions.get(words[0]) else { continue };
            known += 1;
            let seen = words[1..].iter().filter_map(|word| positions.get(word).copied());
            peers[viewer] = seen.collect();
            ensure!(!peers[viewer].contains(&viewer), "line {number}: nobody is its own peer");
        }
        ensure!(known > 0 || roster.is_empty(), "none of its hostnames is in use");
        Ok(Self::Peers(peers))
    }

    /// Whom the node at `viewer` should see, as bits: `bits` has one for each node that has joined.
    pub(crate) fn peers(&self, viewer: usize, bits: &[usize]) -> BitSet {
        match self {
            Self::All => {
                let mut peers: BitSet = bits.iter().copied().collect();
                peers.remove(bits[viewer]);
                peers
            }
            Self::Peers(peers) => {
                peers[viewer].iter().filter_map(|peer| bits.get(*peer).copied()).collect()
            }
        }
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The lines that say something, with their numbers, cut at blanks.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let numbered = (1..).zip(text.lines());
    numbered
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
        .map(|(number, line)| (number, line.split_whitespace().collect::<Vec<_>>()))
        .filter(|(_, words)| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_names_and_tags() {
        let text = "# two nodes\nkey-1 a tag:x,tag:y\n\n  key-2\tb  \n";
        let entries = parse_keys(text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!((&*entries[0].auth_key, &*entries[0].hostname), ("key-1", "a"));
        assert_eq!(entries[0].tags, ["tag:x", "tag:y"]);
        assert!(entries[1].tags.is_empty());
    }

    #[test]
    fn bad_lines_of_keys_are_named() {
        for (text, error) in [
            ("k a\nk", "line 2: not KEY HOSTNAME [TAG,TAG...]"),
            ("k a x y", "line 1: tags are separated by commas, without blanks"),
            ("k a\nk a", "line 2: a is there twice"),
        ] {
            assert_eq!(parse_keys(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn peers_are_read_by_hostname() {
        let roster = sharing("k", 3);
        let expected = Expected::parse("h00001 h00002 h00009\nh00003\nh00008 h00001", &roster);
        let expected = expected.unwrap();
        assert_eq!(expected, Expected::Peers(vec![vec![1], vec![], vec![]]));
        assert_eq!(expected.peers(0, &[7, 8]), [8].into_iter().collect());
        assert_eq!(expected.peers(0, &[7]), BitSet::default());
        assert_eq!(Expected::All.peers(1, &[7, 8, 9]), [7, 9].into_iter().collect());
        for text in ["h00001 h00001", "x y", ""] {
            Expected::parse(text, &roster).unwrap_err();
        }
    }
}
