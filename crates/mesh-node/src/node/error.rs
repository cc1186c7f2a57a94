//! Why a node does not do what a program wants of it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mesh_stack::BindError;
use thiserror::Error;

use crate::state::StateError;

/// Why something that was asked of a node cannot be had.
///
/// ```
/// use mesh_node::NodeError;
///
/// fn is_worth_another_try(error: &NodeError) -> bool {
///     match error {
///         NodeError::UnknownName(_) | NodeError::NoPeer(_) | NodeError::NoAnswer(_) | NodeError::Connect(..) => true,
///         NodeError::Refused(_)
///         | NodeError::LoggedOut
///         | NodeError::NotTold(_)
///         | NodeError::State(_)
///         | NodeError::Closed
///         | NodeError::Address(_) => false,
///     }
/// }
/// assert!(!is_worth_another_try(&NodeError::Address("web".to_owned())));
/// ```
#[derive(Debug, Error)]
pub enum NodeError {
    /// The control server refuses the node.
    #[error("control server refuses the node: {0}")]
    Refused(String),
    /// The node was logged out. [`Node::reauthenticate`](crate::Node::reauthenticate) brings it back.
    #[error("node is logged out")]
    LoggedOut,
    /// The node has left, but the control server was not told, and shows it until its key expires.
    #[error("node is logged out, but the control server could not be told")]
    NotTold(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A new key cannot be had, or cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node was closed.
    #[error("node is closed")]
    Closed,
    /// A text is not `host:port`.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// Neither the tailnet nor the machine's network knows the name.
    #[error("no node is named `{0}`, and no other host")]
    UnknownName(String),
    /// Nobody in the tailnet has or routes the address.
    #[error("no peer has the address {0}")]
    NoPeer(IpAddr),
    /// A ping was not answered.
    #[error("{0} does not answer")]
    NoAnswer(IpAddr),
    /// The connection failed.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
}

/// Why a node does not listen.
///
/// ```
/// use mesh_node::{ListenError, Node};
///
/// fn listen(node: &Node) -> Result<mesh_node::TcpListener, ListenError> {
///     match node.listen(80) {
///         // Whoever was first has it: any port will do.
///         Err(ListenError::InUse) => node.listen(0),
///         result => result,
///     }
/// }
/// ```
pub type ListenError = BindError;
