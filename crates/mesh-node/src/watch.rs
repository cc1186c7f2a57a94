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
