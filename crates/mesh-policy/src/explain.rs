//! Why somebody reaches something, or does not.

mod judge;

use std::fmt;

use mesh_model::NodeId;
use serde::Serialize;

use crate::asked::{Asked, parse_selector};
use crate::compiled::CompiledPolicy;
use crate::parse::parse_protocol;
use crate::policy::{Policy, Selector};
use crate::rules::RulePlace;
use judge::Explainer;

/// A side of a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// One node.
    Node(NodeId),
    /// All that a selector stands for: a user, a group, a tag, addresses.
    Selector(Selector),
}

impl Party {
    /// Reads anything but the name of a node, which only the caller knows.
    ///
    /// # Errors
    /// What is wrong, as a sentence about the text.
    pub fn parse(policy: &Policy, text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("{text:?} {why}");
        let selector = parse_selector(policy, text).map_err(|why| refuse(&why))?;
        if matches!(selector, Selector::SelfNodes | Selector::DangerAll) {
            return Err(refuse("cannot be asked about"));
        }
        Ok(Self::Selector(selector))
    }
}

/// May SRC connect to DST?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who connects.
    pub src: Party,
    /// To what.
    pub dst: Party,
    /// To which port; `None` asks about any.
    pub port: Option<u16>,
    /// Over which IP protocol; `None` is the default set: TCP, UDP and both ICMPs.
    pub proto: Option<u8>,
}

impl Question {
    /// Reads a protocol: a name of any case, or a number from 1 to 255.
    ///
    /// # Errors
    /// What is wrong with it, in the words of the service.
    pub fn parse_protocol(text: &str) -> Result<u8, String> {
        parse_protocol(text)
    }
}

/// The answer to a [`Question`]. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The question: `alice@example.com -> tag:db:5432 over tcp`.
    pub question: String,
    /// The answer.
    pub verdict: Verdict,
    /// Rules that allow it, at least in part, in the order in which they count.
    pub allowed_by: Vec<AllowingRule>,
    /// How many rules more allow it.
    pub more_allow: usize,
    /// Unless all of it is allowed: rules that nearly do, the nearest first.
    pub near_misses: Vec<NearMiss>,
    /// How many rules more nearly do.
    pub more_misses: usize,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
}

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every source reaches every destination.
    Allowed,
    /// Some sources reach some destinations.
    Partly {
        /// How many pairs of source and destination.
        pairs: u64,
        /// Of how many.
        of: u64,
    },
    /// No source reaches any destination.
    Refused,
}

/// A rule that allows what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AllowingRule {
    /// Where it stands.
    #[serde(flatten)]
    pub place: RulePlace,
    /// Those of its sources that match.
    pub sources: Vec<String>,
    /// Those of its destinations that match.
    pub destinations: Vec<String>,
    /// What it opens there: `tcp:443`.
    pub ports: Vec<String>,
    /// Tags of the routers that carry it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

/// A rule that nearly allows what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// Where it stands.
    #[serde(flatten)]
    pub place: RulePlace,
    /// What is missing.
    pub why: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Allowed => write!(f, "{}: allowed", self.question)?,
            Verdict::Partly { pairs, of } => write!(
                f,
                "{}: partly allowed, for {pairs} of {of} pairs of source and destination",
                self.question
            )?,
            Verdict::Refused => write!(f, "{}: refused", self.question)?,
        }
        for rule in &self.allowed_by {
            write!(f, "\n  {rule}")?;
        }
        if self.more_allow > 0 {
            write!(f, "\n  and {} more", self.more_allow)?;
        }
        if self.allowed_by.is_empty() {
            f.write_str("\n  no rule allows it")?;
        }
        for miss in &self.near_misses {
            write!(f, "\n  near miss: {}: {}", miss.place, miss.why)?;
        }
        if self.more_misses > 0 {
            write!(f, "\n  and {} more near misses", self.more_misses)?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for AllowingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, sources, destinations, ports, via } = self;
        let list = |texts: &[String]| texts.join(", ");
        write!(f, "{place}: {} -> {}, ports {}", list(sources), list(destinations), list(ports))?;
        if via.is_empty() { Ok(()) } else { write!(f, ", via {}", list(via)) }
    }
}

impl CompiledPolicy {
    /// Says which rules allow what is asked, or why none does.
    ///
    /// A node that is not one of the tailnet's reaches nothing, and nothing reaches it.
    pub fn explain(&self, question: &Question) -> Explanation {
        let selectors =
            [&question.src, &question.dst].into_iter().filter_map(|party| match party {
                Party::Node(_) => None,
                Party::Selector(selector) => Some(selector.clone()),
            });
        let asked = Asked::new(self, selectors);
        Explainer::new(&asked, question).explain()
    }
}

#[cfg(test)]
mod tests;
