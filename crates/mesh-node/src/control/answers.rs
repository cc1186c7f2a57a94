//! Answers to what the control server asks through the map stream: a sign of life, a request to the node itself (`c2n`), or a
//! ping of a peer.
//!
//! Of the URL that a question names only path and query count: whatever it says, the answer goes to the control server. It goes
//! through the channel that the question came by, but for a sign of life that is wanted outside of it, as headscale does.
//!
//! Source: tailscale `control/controlclient/direct.go`, `answerPing`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use mesh_client::{ControlClient, Dialer, RequestError};
use mesh_wire::{PingRequest, PingResponse};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::c2n;
use crate::core::Pong;
use crate::node::NodeError;
use crate::pinger::{PingKind, Pinger};

/// Most answers under way. A server that asks more is not answered for a while.
pub(super) const ANSWERS_MAX: usize = 16;

/// The longest that finding and posting an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Longest URL of a question.
const URL_BYTES_MAX: usize = 4096;

/// The pings that are asked for by name: all that stock clients know.
const PING_KINDS: [(&str, PingKind); 4] = [
    ("disco", PingKind::Disco),
    ("TSMP", PingKind::Tsmp),
    ("ICMP", PingKind::Icmp),
    ("peerapi", PingKind::PeerApi),
];

/// The answers under way. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Answers {
    pinger: Pinger,
    /// The URL of the last question. With the same URL again it is the same question, told twice.
    last_url: String,
    tasks: JoinSet<()>,
}

impl Answers {
    pub(super) fn new(pinger: Pinger) -> Self {
        Self { pinger, last_url: String::new(), tasks: JoinSet::new() }
    }

    /// Begins to answer a question, if it is one that the node answers.
    pub(super) fn begin(
        &mut self,
        question: &PingRequest,
        client: &ControlClient,
        dialer: &Dialer,
    ) {
        let url = &question.url;
        if url.is_empty() || url.len() > URL_BYTES_MAX || *url == self.last_url {
            return;
        }
        self.last_url.clone_from(url);
        let Some(target) = target_of(url) else {
            return debug!("question of the control server dropped: it has no URL to answer to");
        };
        let client = client.clone();
        match question.types.as_str() {
            "" if question.url_is_noise => {
                self.spawn(async move { client.request(Method::HEAD, &target, "").await });
            }
            "" => {
                let dialer = dialer.clone();
                self.spawn(async move { dialer.request_outside(head(target)?).await });
            }
            "c2n" => match c2n::respond(&question.payload.0) {
                Ok(response) => {
                    self.spawn(async move { client.post_raw(&target, response).await });
                }
                Err(error) => debug!(%error, "question of the control server dropped"),
            },
            types => self.begin_pings(types, question.ip, &target, &client),
        }
    }

    /// Pings a peer in every way that is asked for and known, once each.
    fn begin_pings(
        &mut self,
        types: &str,
        address: Option<IpAddr>,
        target: &str,
        client: &ControlClient,
    ) {
        let Some(address) = address else { return };
        for (name, kind) in PING_KINDS {
            if types.split(',').any(|asked| asked == name) {
                let (pinger, client) = (self.pinger.clone(), client.clone());
                let target = target.to_owned();
                self.spawn(async move {
                    let result = pinger.ping(address, kind).await;
                    let response = serde_json::to_vec(&ping_response(name, address, &result))?;
                    client.post_raw(&target, response).await
                });
            }
        }
    }

    /// Spawns the task that finds and posts an answer.
    fn spawn<E: std::error::Error + Send + 'static>(
        &mut self,
        posted: impl Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= ANSWERS_MAX {
            return debug!("question of the control server dropped: too many are under way");
        }
        self.tasks.spawn(async move {
            match timeout(ANSWER_MAX, posted).await {
                Ok(Ok(answer)) => debug!(status = answer.status().as_u16(), "question answered"),
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    debug!(error, "control server was not answered");
                }
                Err(_) => debug!("control server takes no answer"),
            }
        });
    }
}

fn ping_response(name: &str, address: IpAddr, result: &Result<Pong, NodeError>) -> PingResponse {
    let response = PingResponse {
        ping_type: name.to_owned(),
        ip: address.to_string(),
        node_ip: address.to_string(),
        ..PingResponse::default()
    };
    match result {
        Ok(pong) => PingResponse {
            latency_seconds: pong.latency.as_secs_f64(),
            endpoint: pong.direct.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            derp_region_id: pong.relay.unwrap_or_default(),
            ..response
        },
        Err(error) => PingResponse { err: error.to_string(), ..response },
    }
}

/// Path and query of a URL.
fn target_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.host()?;
    Some(uri.path_and_query()?.to_string())
}

fn head(target: String) -> Result<Request<Full<Bytes>>, RequestError> {
    Ok(Request::head(target).body(Full::default())?)
}
