//! What a program hears of a node while it runs.

use std::sync::Arc;

use mesh_wire::NodeId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::control::Phase;
use crate::node::NodeError;

/// How many events wait for a watcher before it misses some.
pub(crate) const EVENTS_MAX: usize = 1024;

/// How far a node has come with the control server.
///
/// ```
/// use mesh_node::State;
///
/// fn advice(state: &State) -> Option<String> {
///     match state {
///         State::NeedsLogin(url) => Some(format!("log in at {url}")),
///         State::NeedsMachineAuth => Some("have an admin approve this machine".to_owned()),
///         State::Refused(why) => Some(format!("the control server says: {why}")),
///         State::LoggedOut => Some("log in again".to_owned()),
///         State::Starting | State::Running => None,
///     }
/// }
/// assert_eq!(advice(&State::Running), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has no session, and tries to get one.
    Starting,
    /// Somebody has to log in at this URL.
    NeedsLogin(String),
    /// Somebody has to approve the machine.
    NeedsMachineAuth,
    /// The server refuses the node, in its own words.
    Refused(String),
    /// The node was logged out.
    LoggedOut,
    /// A session is open.
    Running,
}

/// Something that happened to a node or its tailnet.
///
/// [Example](Watch)
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// The state is another.
    State(State),
    /// The control server has told the node of itself.
    SelfNode(Arc<mesh_wire::Node>),
    /// A peer has come, or is not what it was.
    Peer(Arc<mesh_wire::Node>),
    /// A peer is gone.
    PeerRemoved(NodeId),
    /// The watcher was too slow and has missed events: what it knows of peers is to be asked for anew.
    Lagged,
}

/// Events of a node, from when this was made on. Its first is the state.
///
/// ```
/// # use mesh_node::{Node, WatchEvent};
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// use std::collections::BTreeMap;
///
/// let mut watch = node.watch();
/// let mut names = BTreeMap::new();
/// loop {
///     match watch.next().await? {
///         WatchEvent::State(state) => println!("{state:?}"),
///         WatchEvent::SelfNode(own) => println!("this node is {}", own.name),
///         WatchEvent::Peer(peer) => drop(names.insert(peer.id, peer.name.clone())),
///         WatchEvent::PeerRemoved(id) => drop(names.remove(&id)),
///         WatchEvent::Lagged => {
///             let peers = node.status().await?.peers.into_iter();
///             names = peers.map(|peer| (peer.node.id, peer.node.name)).collect();
///         }
///     }
///     # break;
/// }
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    events: broadcast::Receiver<WatchEvent>,
}

impl Watch {
    pub(crate) fn new(
        mut phase: watch::Receiver<Phase>,
        events: broadcast::Receiver<WatchEvent>,
    ) -> Self {
        phase.mark_changed();
        Self { phase, events }
    }

    /// Waits for the next event. Safe to cancel.
    ///
    /// ```
    /// # use mesh_node::{Node, WatchEvent};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// let first = node.watch().next().await?;
    /// assert!(matches!(first, WatchEvent::State(_)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`NodeError::Closed`] when the node was closed.
    pub async fn next(&mut self) -> Result<WatchEvent, NodeError> {
        tokio::select! {
            biased;
            changed = self.phase.changed() => {
                changed.map_err(|_| NodeError::Closed)?;
                Ok(WatchEvent::State(State::from(&*self.phase.borrow_and_update())))
            }
            event = self.events.recv() => match event {
                Ok(event) => Ok(event),
                Err(RecvError::Lagged(_)) => Ok(WatchEvent::Lagged),
                Err(RecvError::Closed) => Err(NodeError::Closed),
            },
        }
    }
}

impl From<&Phase> for State {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Starting => Self::Starting,
            Phase::NeedsLogin(url) => Self::NeedsLogin(url.clone()),
            Phase::NeedsMachineAuth => Self::NeedsMachineAuth,
            Phase::Refused(error) => Self::Refused(error.clone()),
            Phase::LoggedOut => Self::LoggedOut,
            Phase::Connected => Self::Running,
        }
    }
}
