//! A login with a key of the moment.

use std::sync::Arc;
use std::time::Duration;

use mesh_derp_client::{
    CONNECT_TIMEOUT, ConnectError, DisconnectCause, Event, Options, RegionClient,
};
use mesh_keys::{NodePrivate, NodePublic};
use mesh_wire::{DerpNode, DerpRegion};
use rustls::RootCertStore;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Failure, Login};

/// What of a relay may wait to be looked at.
const EVENTS_MAX: usize = 64;

/// How much longer than connecting itself it may take to hear of it.
const SLACK: Duration = Duration::from_secs(1);

/// A client that a node has let in.
pub(in crate::derp_map) struct Session {
    pub(in crate::derp_map) key: NodePublic,
    pub(in crate::derp_map) client: RegionClient,
    pub(in crate::derp_map) events: mpsc::Receiver<Event>,
}

/// Logs in to a node that is known to be a relay.
pub(super) async fn log_in(node: &DerpNode, roots: Arc<RootCertStore>) -> Result<Session, Login> {
    let failed = |error: &dyn ToString| Login::Failed(Failure::Login(error.to_string()));
    let private = NodePrivate::generate().map_err(|error| failed(&error))?;
    let key = private.public();
    let region_id = node.region_id;
    let region = DerpRegion { region_id, nodes: vec![node.clone()], ..DerpRegion::default() };
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let options = Options { region: Arc::new(region), private, roots, is_home: false };
    let client = RegionClient::spawn(options, sender);
    let cause = match timeout(CONNECT_TIMEOUT + SLACK, events.recv()).await {
        Ok(Some(Event::Connected { .. })) => return Ok(Session { key, client, events }),
        Ok(Some(Event::Disconnected { cause, .. })) => cause,
        Ok(Some(Event::Received { .. } | Event::PeerGone { .. }) | None) | Err(_) => {
            return Err(failed(&"nothing comes of it in time"));
        }
    };
    if let DisconnectCause::Connect { source, .. } = &cause {
        // It has told its key and heard ours. Whoever hangs up before that may be anything.
        let is_refused = matches!(source, ConnectError::WithinLogin(_));
        return Err(if is_refused { Login::Refused } else { failed(source) });
    }
    Err(failed(&cause))
}
