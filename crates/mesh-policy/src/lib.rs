//! The policy of a tailnet: who sees whom, what a packet filter lets through, and what nodes are told.
//!
//! [`Policy::parse`] makes a checked [`Policy`] of HuJSON text, or says all that is wrong with it. Compiled against a
//! tailnet's users and nodes it is a [`CompiledPolicy`], which is kept up event by event and asked by everything
//! downstream. Nodes that policy cannot tell apart form a *class*; visibility is a relation between classes. A
//! tailnet without a policy has the default one, in which everybody reaches everybody.

mod approvals;
mod asked;
mod attributes;
mod chunked;
mod compiled;
mod delta;
mod diff;
mod edit;
mod explain;
mod facts;
mod filter;
#[cfg(test)]
mod fixture;
mod format;
mod hujson;
mod members;
mod parse;
pub mod policy;
mod policy_tests;
mod posture;
mod problem;
mod program;
mod ranges;
mod routes;
mod rules;
mod sources;
mod ssh;
mod view;

pub use approvals::TagRefusal;
pub use compiled::{ClassId, CompiledPolicy, RelationSize, Sight};
pub use delta::PolicyDelta;
pub use diff::{Change, Effect, PolicyDiff};
pub use explain::{AllowingRule, Explanation, NearMiss, Party, Question, Verdict};
pub use facts::{Device, NodeFacts, NodeOwner, Role, UserFacts, active_routes};
pub use filter::FilterChunks;
pub use format::format;
pub use parse::{POLICY_BYTES_MAX, RULES_MAX};
pub use policy::{Policy, PortRange, RawJson, Selector, SelectorId};
pub use policy_tests::{Check, TestOutcome, TestReport};
pub use problem::{PROBLEMS_MAX, Problem, Problems};
pub use ranges::{IpRange, IpRanges};
pub use rules::RulePlace;
pub use view::{CapGrant, Capabilities, FilterRule, NetPortRange, NodeView, PeerView, SshAccess};
