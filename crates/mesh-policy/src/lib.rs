//! The policy of a tailnet: who sees whom, what a packet filter lets through, and what nodes are told.
//!
//! [`Policy::parse`] makes a checked [`Policy`] of HuJSON text, or says all that is wrong with it. Compiled against a
//! tailnet's users and nodes it is a [`CompiledPolicy`], which is kept up event by event and asked by everything
//! downstream. Nodes that policy cannot tell apart form a *class*; visibility is a relation between classes. A
//! tailnet without a policy has the default one, in which everybody reaches everybody.

mod compiled;
mod facts;
mod filter;
pub mod policy;
mod ranges;
mod view;

pub use compiled::{ClassId, CompiledPolicy};
pub use facts::{Device, NodeFacts, NodeOwner, Role, UserFacts, active_routes};
pub use filter::{Destination, FilterRule, PortRange, Source};
pub use policy::{Policy, RawJson, Selector, SelectorId};
pub use ranges::{IpRange, IpRanges};
pub use view::{CapGrant, Capabilities, NetPortRange, NodeView, PeerView, SshAccess};
