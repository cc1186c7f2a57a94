//! The client of a daemon's local API, over its unix socket.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use mesh_node::loopback::{Netcheck, PeerStatus, PingResult, Status, WhoIsResponse};
use mesh_wire::DerpMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Upgraded, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::state_dir::StateDir;

/// How long a daemon may take to answer what it knows by itself.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// No daemon could be reached.
#[derive(Debug, Error)]
#[error(
    "no meshnode answers at {}: start one with `meshnode up`, or name its directory by --state-dir",
    socket.display()
)]
pub(crate) struct Unreachable {
    socket: PathBuf,
    /// Whether nobody was there, or somebody was and is gone.
    is_refused: bool,
}

/// The daemon refused or failed.
#[derive(Debug, Error)]
#[error("{text}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    text: String,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

/// A daemon, as the verbs reach it.
#[derive(Debug, Clone)]
pub(crate) struct LocalClient {
    http: reqwest::Client,
    socket: PathBuf,
}

impl LocalClient {
    /// The daemon of a state directory, whether it runs or not.
    pub(crate) fn new(state_dir: &StateDir) -> anyhow::Result<Self> {
        let socket = state_dir.socket();
        // The system's authorities are not needed, and may not even be there.
        let http = reqwest::Client::builder().unix_socket(socket.clone()).tls_certs_only([]);
        Ok(Self { http: http.build()?, socket })
    }

    /// The node, and its peers if they are wanted.
    pub(crate) async fn status(&self, peers: bool) -> anyhow::Result<Status> {
        let request = self.request(Method::GET, "status").query(&[("peers", peers)]);
        self.ask(request.timeout(ANSWER_MAX)).await
    }

    /// Who has an address.
    pub(crate) async fn who_is(&self, address: &str) -> anyhow::Result<WhoIsResponse> {
        let request = self.request(Method::GET, "whois").query(&[("addr", address)]);
        self.ask(request.timeout(ANSWER_MAX)).await
    }

    /// Pings a peer once.
    pub(crate) async fn ping(
        &self,
        ip: IpAddr,
        kind: &str,
        timeout: Duration,
    ) -> anyhow::Result<PingResult> {
        let query = [("ip", ip.to_string()), ("type", kind.to_owned())];
        self.ask(self.request(Method::POST, "ping").query(&query).timeout(timeout)).await
    }

    /// What the network around the node is like.
    pub(crate) async fn netcheck(&self) -> anyhow::Result<Netcheck> {
        self.ask(self.request(Method::GET, "netcheck").timeout(ANSWER_MAX)).await
    }

    /// The relays of the tailnet.
    pub(crate) async fn derp_map(&self) -> anyhow::Result<DerpMap> {
        self.ask(self.request(Method::GET, "derpmap").timeout(ANSWER_MAX)).await
    }

    /// Has the node leave the tailnet.
    pub(crate) async fn logout(&self) -> anyhow::Result<()> {
        self.send(self.request(Method::POST, "logout").timeout(ANSWER_MAX)).await.map(drop)
    }

    /// Ends the daemon.
    pub(crate) async fn shutdown(&self) -> anyhow::Result<()> {
        match self.send(self.request(Method::POST, "shutdown").timeout(ANSWER_MAX)).await {
            // It may have ended before its answer was written.
            Err(error)
                if error.downcast_ref::<Unreachable>().is_some_and(|error| !error.is_refused) =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// A connection to `host` at `port`, as the tailnet knows them.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> anyhow::Result<Upgraded> {
        let request = self.request(Method::POST, "dial");
        let request =
            request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, "ts-dial");
        let request = request.header("dial-host", host).header("dial-port", port);
        let answer = self.send(request).await?;
        Ok(answer.upgrade().await?)
    }

    /// The address of a peer, or of the node itself, by its name, its full name or itself.
    pub(crate) async fn resolve(&self, name: &str) -> anyhow::Result<IpAddr> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        let found = find(self.status(true).await?, name);
        let addresses = found.map(|peer| peer.tailscale_ips).unwrap_or_default();
        addresses
            .first()
            .copied()
            .ok_or_else(|| anyhow!("no node is named `{name}`: `meshnode status` shows all"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://localhost/localapi/v0/{path}"))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let body = self.send(request).await?.bytes().await?;
        serde_json::from_slice(&body).context("daemon answered what a meshnode would not")
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let text = match answer.json().await {
            Ok(Failure { error }) => error,
            Err(_) => format!("daemon answered {status}"),
        };
        Err(Refused { status, text }.into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        if error.is_timeout() {
            return anyhow!("daemon at {} took too long", self.socket.display());
        }
        let first: &(dyn Error + 'static) = error;
        let io_error = std::iter::successors(Some(first), |error| (*error).source())
            .find_map(|error| error.downcast_ref::<io::Error>());
        if io_error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            let socket = self.socket.display();
            return anyhow!("{socket} is another user's: run this as that user, or as root");
        }
        Unreachable { socket: self.socket.clone(), is_refused: error.is_connect() }.into()
    }
}

/// The node of a name: the first label, or the whole.
pub(crate) fn find(status: Status, name: &str) -> Option<PeerStatus> {
    let name = name.trim_end_matches('.');
    let is_it = |node: &PeerStatus| {
        let full = node.dns_name.trim_end_matches('.');
        let label = full.split('.').next().unwrap_or_default();
        full.eq_ignore_ascii_case(name) || label.eq_ignore_ascii_case(name)
    };
    status.self_node.into_iter().chain(status.peer.into_values()).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> PeerStatus {
        PeerStatus { dns_name: name.to_owned(), ..PeerStatus::default() }
    }

    #[test]
    fn nodes_are_found_by_label_and_by_full_name() {
        let found = |name: &str| {
            let status =
                Status { self_node: Some(node("Web.example.ts.net.")), ..Status::default() };
            find(status, name).is_some()
        };
        assert!(found("web"));
        assert!(found("WEB.example.ts.net"));
        assert!(found("web.example.ts.net."));
        assert!(!found("web.example"));
        assert!(!found(""));
    }

    #[tokio::test]
    async fn without_a_daemon_the_way_to_one_is_told() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::choose(Some(directory.path().to_owned())).unwrap();
        let error = LocalClient::new(&state_dir).unwrap().status(false).await.unwrap_err();
        assert!(error.is::<Unreachable>());
        assert!(error.to_string().contains("meshnode up"), "{error}");
    }
}
