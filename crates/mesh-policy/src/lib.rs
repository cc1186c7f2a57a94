//! What a policy compiles to: who sees whom, and what a packet filter lets through.
//!
//! Nodes that policy cannot tell apart form a *class*; visibility is a relation between classes, and a class
//! knows its members as a bitmap of node ids. Everything downstream asks a [`CompiledPolicy`] and never
//! whether there is a policy: a tailnet without one has the policy that allows all, which is one class.
//!
//! Reading and compiling the policy language is not here.

mod compiled;
mod filter;

pub use compiled::{ClassId, CompiledPolicy};
pub use filter::{Destination, FilterRule, PortRange, Source};
