//! The local API: what other programs on the machine ask of a node, and have it do.
//!
//! Paths, parameters and answers are those of Tailscale's, as far as a node without a network interface has them. An error
//! is `{"error": "in words"}`.
//!
//! Source: tailscale `ipn/localapi/localapi.go`.

mod status;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_wire::{CapMap, DerpMap};
use serde::Deserialize;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tracing::debug;

use super::ipnstate::{self, Netcheck, PingResult, WhoIsResponse};
use super::{DialError, meaning};
use crate::{Node, NodeError, PingKind, Stream, WhoIs};

/// The protocol that a connection to a peer is upgraded to: none but the peer's.
const DIAL_PROTOCOL: HeaderValue = HeaderValue::from_static("ts-dial");

/// The local API of a node, for whoever may ask.
///
/// ```
/// # use std::sync::Arc;
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// # let node = Arc::new(node);
/// use mesh_node::loopback::router;
///
/// // For whoever can connect to the socket.
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("node.sock");
/// let listener = tokio::net::UnixListener::bind(path)?;
/// let served = axum::serve(listener, router(Arc::clone(&node)));
/// # drop(served);
/// # Ok(()) });
/// ```
pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/localapi/v0/status", get(status))
        .route("/localapi/v0/whois", get(who_is))
        .route("/localapi/v0/ping", post(ping))
        .route("/localapi/v0/derpmap", get(derp_map))
        .route("/localapi/v0/netcheck", get(netcheck))
        .route("/localapi/v0/dial", post(dial))
        .route("/localapi/v0/logout", post(logout))
        .with_state(node)
}

/// Why a request has no answer.
#[derive(Debug)]
struct ApiError(StatusCode, String);

impl From<DialError> for ApiError {
    fn from(error: DialError) -> Self {
        Self(meaning(&error).0, in_words(&error))
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        DialError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// An error with its causes.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[derive(Deserialize)]
struct StatusQuery {
    /// Whether the peers are told, too.
    #[serde(default = "yes")]
    peers: bool,
}

fn yes() -> bool {
    true
}

async fn status(
    State(node): State<Arc<Node>>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<ipnstate::Status>, ApiError> {
    let (mut told, netcheck) = (node.status().await?, node.netcheck().await?);
    if !query.peers {
        told.peers.clear();
    }
    Ok(Json(status::status(told, &node, &netcheck)))
}

#[derive(Deserialize)]
struct WhoIsQuery {
    /// An address, or one with a port.
    addr: String,
}

async fn who_is(
    State(node): State<Arc<Node>>,
    Query(WhoIsQuery { addr }): Query<WhoIsQuery>,
) -> Result<Json<WhoIsResponse>, ApiError> {
    let ip = parse_ip(&addr).ok_or_else(|| {
        ApiError(
            StatusCode::BAD_REQUEST,
            format!("`{addr}` is neither an address nor one with a port"),
        )
    })?;
    let mut who = node.who_is(ip).await?;
    if who.is_none() && node.ips().contains(&ip) {
        let told = node.status().await?;
        who = told.node.map(|node| WhoIs {
            user_profile: told.users.get(&node.user).cloned(),
            node,
            cap_map: CapMap::new(),
        });
    }
    let who = who
        .ok_or_else(|| ApiError(StatusCode::NOT_FOUND, format!("no node has the address {ip}")))?;
    Ok(Json(WhoIsResponse {
        node: who.node,
        user_profile: who.user_profile.unwrap_or_default(),
        cap_map: who.cap_map,
    }))
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[derive(Deserialize)]
struct PingQuery {
    ip: IpAddr,
    /// `disco`, `TSMP`, `ICMP` or `peerapi`.
    #[serde(rename = "type")]
    kind: String,
}

async fn ping(
    State(node): State<Arc<Node>>,
    Query(PingQuery { ip, kind }): Query<PingQuery>,
) -> Result<Json<PingResult>, ApiError> {
    let kind = match kind.as_str() {
        "disco" => PingKind::Disco,
        "TSMP" => PingKind::Tsmp,
        "ICMP" => PingKind::Icmp,
        "peerapi" => PingKind::PeerApi,
        _ => {
            let text = format!("`{kind}` is none of disco, TSMP, ICMP and peerapi");
            return Err(ApiError(StatusCode::BAD_REQUEST, text));
        }
    };
    let asked = PingResult { ip: ip.to_string(), ..PingResult::default() };
    if node.ips().contains(&ip) {
        let err = format!("{ip} is this node's own");
        return Ok(Json(PingResult { err, is_local_ip: true, ..asked }));
    }
    let pong = match node.ping(ip, kind).await {
        Ok(pong) => pong,
        Err(error @ (NodeError::NoAnswer(_) | NodeError::NoPeer(_) | NodeError::Connect(..))) => {
            return Ok(Json(PingResult { err: in_words(&error), ..asked }));
        }
        Err(error) => return Err(error.into()),
    };
    let peer = node.who_is(ip).await?.map(|who| who.node).unwrap_or_default();
    let netcheck = node.netcheck().await?;
    let relay = pong.relay.unwrap_or_default();
    Ok(Json(PingResult {
        node_ip: peer.addresses.first().map(|own| own.addr().to_string()).unwrap_or_default(),
        node_name: peer.name,
        latency_seconds: pong.latency.as_secs_f64(),
        endpoint: pong.direct.map(|address| address.to_string()).unwrap_or_default(),
        derp_region_id: relay,
        derp_region_code: status::region_code(netcheck.derp_map.as_deref(), relay),
        ..asked
    }))
}

async fn derp_map(State(node): State<Arc<Node>>) -> Result<Json<DerpMap>, ApiError> {
    let map = node.netcheck().await?.derp_map;
    Ok(Json(map.as_deref().cloned().unwrap_or_default()))
}

/// What `tailscale netcheck` finds out by itself, the node knows.
async fn netcheck(State(node): State<Arc<Node>>) -> Result<Json<Netcheck>, ApiError> {
    Ok(Json(Netcheck::new(&node.netcheck().await?)))
}

async fn logout(State(node): State<Arc<Node>>) -> Result<StatusCode, ApiError> {
    node.logout().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Becomes a connection to a peer.
async fn dial(State(node): State<Arc<Node>>, mut request: Request) -> Result<Response, ApiError> {
    let to = destination(request.headers())
        .map_err(|text| ApiError(StatusCode::BAD_REQUEST, text.to_owned()))?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
        ApiError(StatusCode::BAD_REQUEST, "connection cannot be upgraded: use HTTP/1.1".to_owned())
    })?;
    let peer = node.dial_for(&to).await?;
    tokio::spawn(join(upgrade, peer));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, DIAL_PROTOCOL),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Where a request to dial wants to go, as `host:port`.
fn destination(headers: &HeaderMap) -> Result<String, &'static str> {
    if headers.get(header::UPGRADE) != Some(&DIAL_PROTOCOL) {
        return Err("not an upgrade to ts-dial");
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (Some(host), Some(port)) = (text("dial-host"), text("dial-port")) else {
        return Err("no headers Dial-Host and Dial-Port");
    };
    if text("dial-network").is_some_and(|network| network != "tcp") {
        return Err("only TCP can be dialled");
    }
    let is_ipv6 = host.contains(':');
    Ok(if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Joins a client with its peer until both are done, or the node is closed.
async fn join(upgrade: OnUpgrade, mut peer: Stream) {
    let Ok(client) = upgrade.await else { return };
    if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut peer).await {
        debug!(error = &error as &dyn std::error::Error, "dialled connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(headers: &[(&'static str, &'static str)]) -> Result<String, &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        destination(&headers.collect())
    }

    #[test]
    fn a_dial_names_its_host_and_port_in_headers() {
        let dial = |host, port| {
            dialled(&[("upgrade", "ts-dial"), ("dial-host", host), ("dial-port", port)])
        };
        assert_eq!(dial("web", "80").as_deref(), Ok("web:80"));
        assert_eq!(dial("fd7a::1", "80").as_deref(), Ok("[fd7a::1]:80"));
    }

    #[test]
    fn a_dial_without_host_or_upgrade_or_of_another_network_is_refused() {
        assert!(dialled(&[("dial-host", "web"), ("dial-port", "80")]).is_err());
        assert!(dialled(&[("upgrade", "ts-dial"), ("dial-port", "80")]).is_err());
        let udp = [
            ("upgrade", "ts-dial"),
            ("dial-host", "web"),
            ("dial-port", "53"),
            ("dial-network", "udp"),
        ];
        assert!(dialled(&udp).is_err());
    }

    #[test]
    fn whois_takes_addresses_with_and_without_a_port() {
        assert_eq!(parse_ip("100.64.0.1:80"), parse_ip("100.64.0.1"));
        assert_eq!(parse_ip("[fd7a::1]:80"), parse_ip("fd7a::1"));
        assert_eq!(parse_ip("web"), None);
    }
}
