//! The session with the control server: register, follow the map stream, tell what has changed about the node.
//!
//! One task. It dials again for as long as the node lives, whatever the server answers; after a logout it waits until it is
//! told to log in again. The server's Noise key is asked for at each dial, as stock clients do, and is not kept between them:
//! who answers at the URL is the TLS certificate's to prove.

mod answers;
mod keeper;
mod login;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_client::{DialError, Dialer, MapStreamError, RequestError};
use mesh_keys::{DiscoPublic, NodePrivate};
use mesh_portmap::Services;
use mesh_wire::{
    CapabilityVersion, DerpRegionId, EndpointType, Hostinfo, MapResponse, Node, SecretText,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use self::keeper::Keeper;
use crate::node::NodeError;
use crate::pinger::Pinger;
use crate::state::{NodeState, StateError, StateStore};

/// What this client understands.
const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// What the engine is told.
#[derive(Debug)]
pub(crate) enum Update {
    /// A session has begun: what follows is told from the beginning.
    Began,
    /// A part of the list of all peers. The next message ends the list: peers that were not named by then are gone.
    Peers(Vec<Node>),
    /// The next message of the session, or what is left of it when its peers have been told.
    Message(Box<MapResponse>),
    /// The node has left the tailnet: what was told of it is to be forgotten.
    LoggedOut,
}

/// How far the node has come with the control server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not been answered yet, or not since the connection broke.
    #[default]
    Starting,
    /// Somebody has to log in at this URL.
    NeedsLogin(String),
    /// Somebody has to approve the machine.
    NeedsMachineAuth,
    /// The server refuses the node, in its own words.
    Refused(String),
    /// A session is open.
    Connected,
    /// The node was logged out, and does not try to come back by itself.
    LoggedOut,
}

/// What the node finds out about itself and the server is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) endpoints: Vec<(SocketAddr, EndpointType)>,
    pub(crate) home: DerpRegionId,
    /// Round trips in seconds, by `<region>-v4` or `<region>-v6`.
    pub(crate) latencies: BTreeMap<String, f64>,
    /// What the machine's gateway speaks, if it was asked.
    pub(crate) port_mapping: Option<Services>,
}

/// What a program wants done, and where to say what came of it.
#[derive(Debug)]
pub(crate) enum Command {
    /// Leave the tailnet, and forget the node key.
    Logout(oneshot::Sender<Result<(), NodeError>>),
    /// Log in with a new node key, also after a logout.
    Reauthenticate(oneshot::Sender<Result<(), NodeError>>),
}

/// Why a session ended.
#[derive(Debug, Error)]
enum SessionError {
    #[error("cannot reach the control server")]
    Dial(#[from] DialError),
    #[error("control server refuses: {0}")]
    Refused(String),
    #[error("control server refuses a new key: {0}")]
    NotRenewed(String),
    #[error("machine is not approved yet")]
    NotApproved,
    #[error("request to the control server failed")]
    Request(#[from] RequestError),
    #[error("map stream failed")]
    Stream(#[from] MapStreamError),
    #[error("map stream was silent for {} s", stream::SILENCE_MAX.as_secs())]
    Silence,
    #[error("map stream begins without the node itself")]
    NoNode,
    #[error("control server does not answer a registration")]
    NoAnswer,
    #[error("control server ended the map stream")]
    Ended,
    #[error("control server says that the node's key has expired")]
    Expired,
    #[error("node has a new key")]
    Renewed,
    #[error("node is being closed")]
    Closed,
    #[error("new key cannot be kept")]
    State(#[from] StateError),
}

/// What a session needs, told when the node is built.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) dialer: Dialer,
    pub(crate) hostinfo: Hostinfo,
    /// Empty if there is none.
    pub(crate) auth_key: SecretText,
    pub(crate) ephemeral: bool,
    pub(crate) disco: DiscoPublic,
}

/// What the task starts with.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) identity: Identity,
    pub(crate) state: NodeState,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) report: watch::Receiver<Report>,
    /// The node key in use.
    pub(crate) key: watch::Sender<NodePrivate>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Whether to log in with a new key although the state holds one that is registered.
    pub(crate) force_login: bool,
    /// Pings peers for the control server.
    pub(crate) pinger: Pinger,
}

impl Control {
    /// Keeps up sessions until the engine or the node's handle is gone.
    pub(crate) async fn run(self) {
        let (mut keeper, mut commands) = Keeper::new(self);
        loop {
            tokio::select! {
                biased;
                // What a program asks for ends the session; the next one begins with it.
                command = commands.recv() => match command {
                    Some(command) => keeper.handle_command(command).await,
                    None => return,
                },
                () = keeper.keep_up() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
