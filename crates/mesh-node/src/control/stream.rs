//! An open session: what comes by the map stream goes to the engine, what the engine finds out goes to the server.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use mesh_client::{ControlClient, MapPart, MapStream, RequestError, backoff};
use mesh_keys::NodePublic;
use mesh_wire::{EndpointType, MapRequest, NetInfo, Node};
use tokio::sync::{mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::answers::Answers;
use super::{Identity, Phase, Report, SessionError, Update, VERSION};
use crate::host::wall_clock;

/// A stream without a message for so long is given up: only what comes through it proves that it is alive.
pub(super) const SILENCE_MAX: Duration = Duration::from_mins(2);

/// The longest wait until the server has taken in what it is told.
const TELL_MAX: Duration = Duration::from_mins(1);

/// Between the control server and the rest of the node.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) identity: Identity,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) report: watch::Receiver<Report>,
}

impl Line {
    /// Opens the map stream of a node.
    pub(super) async fn open(
        &self,
        client: &ControlClient,
        key: NodePublic,
    ) -> Result<MapStream, SessionError> {
        let stream = timeout(SILENCE_MAX, client.map_stream(&self.map_request(key))).await;
        Ok(stream.map_err(|_| SessionError::Silence)??)
    }

    /// Hands on what the server says, until the stream ends.
    pub(super) async fn follow(
        &self,
        stream: MapStream,
        client: &ControlClient,
        answers: &mut Answers,
    ) -> Result<Infallible, SessionError> {
        self.update(Update::Began).await?;
        let mut stream = stream.in_parts();
        let mut expires_at = None;
        let mut has_begun = false;
        loop {
            let part = tokio::select! {
                biased;
                part = timeout(SILENCE_MAX, stream.next()) => part,
                // Without a word of the server, too.
                () = expiry(expires_at) => return Err(SessionError::Expired),
            };
            let message =
                match part.map_err(|_| SessionError::Silence)??.ok_or(SessionError::Ended)? {
                    MapPart::Peers(peers) => {
                        self.update(Update::Peers(peers)).await?;
                        continue;
                    }
                    MapPart::Message(message) => message,
                };
            if let Some(question) = &message.ping_request {
                answers.begin(question, client, &self.identity.dialer);
            }
            if let Some(node) = &message.node {
                expires_at = node.key_expiry;
            }
            // So a server tells a node that it was deleted, too. It counts as a failure: whoever takes the key again and calls it
            // expired again, as a wrong clock does, is not asked without end.
            if expires_at.is_some_and(|expires_at| expires_at <= wall_clock()) {
                return Err(SessionError::Expired);
            }
            if message.keep_alive {
                if message.control_time.is_some() {
                    self.update(Update::Message(message)).await?;
                }
                continue;
            }
            match &message.node {
                Some(node) => self.note_node(node),
                None if has_begun => {}
                None => return Err(SessionError::NoNode),
            }
            has_begun = true;
            self.update(Update::Message(message)).await?;
        }
    }

    /// Tells the server what the node knows of itself, whenever that has changed.
    pub(super) async fn tell(
        &self,
        client: &ControlClient,
        key: NodePublic,
    ) -> Result<Infallible, SessionError> {
        let mut reports = self.report.clone();
        let mut failures = 0;
        loop {
            let request = self.lite_update(key, &reports.borrow_and_update());
            debug!(endpoints = request.endpoints.len(), "telling the control server of the node");
            match timeout(TELL_MAX, client.lite_update(&request)).await {
                Ok(Ok(())) => {
                    failures = 0;
                    reports.changed().await.map_err(|_| SessionError::Closed)?;
                }
                Ok(Err(error)) if client.is_closed() => return Err(error.into()),
                // The stream is what counts. It goes on, and what was not taken is told again.
                refused => {
                    failures += 1;
                    note_untold(&refused);
                    sleep(backoff(failures, getrandom::u32().unwrap_or_default())).await;
                }
            }
        }
    }

    /// Says where somebody has to log in. That stays until the login is over, whatever else happens.
    pub(super) fn note_login(&self, url: &str) {
        self.phase.send_replace(Phase::NeedsLogin(url.to_owned()));
    }

    pub(super) async fn update(&self, update: Update) -> Result<(), SessionError> {
        self.updates.send(update).await.map_err(|_| SessionError::Closed)
    }

    fn note_node(&self, node: &Node) {
        let phase =
            if node.machine_authorized { Phase::Connected } else { Phase::NeedsMachineAuth };
        self.phase.send_if_modified(|current| {
            let is_new = !matches!(current, Phase::NeedsLogin(_)) && *current != phase;
            if is_new {
                *current = phase;
            }
            is_new
        });
    }

    fn map_request(&self, key: NodePublic) -> MapRequest {
        MapRequest {
            version: VERSION,
            compress: "zstd".to_owned(),
            keep_alive: true,
            node_key: key,
            disco_key: self.identity.disco,
            stream: true,
            hostinfo: Some(Box::new(self.identity.hostinfo.clone())),
            ..MapRequest::default()
        }
    }

    fn lite_update(&self, key: NodePublic, report: &Report) -> MapRequest {
        let is_mapped = |(_, kind): &(_, EndpointType)| *kind == EndpointType::PORTMAPPED;
        let net_info = NetInfo {
            working_udp: Some(!report.latencies.is_empty()),
            working_ipv6: Some(report.latencies.keys().any(|region| region.ends_with("-v6"))),
            have_port_map: report.endpoints.iter().any(is_mapped),
            pmp: report.port_mapping.map(|services| services.nat_pmp),
            pcp: report.port_mapping.map(|services| services.pcp),
            preferred_derp: report.home,
            derp_latency: report.latencies.clone(),
            ..NetInfo::default()
        };
        let mut request = self.map_request(key);
        if let Some(hostinfo) = &mut request.hostinfo {
            hostinfo.net_info = Some(net_info);
        }
        let (endpoints, endpoint_types) = report.endpoints.iter().copied().unzip();
        MapRequest { stream: false, omit_peers: true, endpoints, endpoint_types, ..request }
    }
}

/// Waits until the key has expired, by the machine's clock as with stock clients.
async fn expiry(expires_at: Option<Timestamp>) {
    let Some(expires_at) = expires_at else { return pending().await };
    while let Ok(left) = Duration::try_from(expires_at.duration_since(wall_clock()))
        && !left.is_zero()
    {
        sleep(left).await;
    }
}

fn note_untold(result: &Result<Result<(), RequestError>, Elapsed>) {
    let error = match result {
        Ok(Err(error)) => error as &dyn std::error::Error,
        Err(error) => error,
        Ok(Ok(())) => return,
    };
    debug!(error, "control server does not take in what it is told of the node");
}
