//! What a node is told when it is made, and how it comes to life.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_client::{ControlUrl, ControlUrlError, Dialer};
use mesh_keys::DiscoPrivate;
use mesh_stack::{Config, Stack};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::control::{Control, Identity, Phase, Report};
use crate::engine::{Engine, Parts, Sockets};
use crate::node::Node;
use crate::state::{FileStore, MemoryStore, NodeState, StateError, StateStore};
use crate::{host, node};

/// Environment variables that stand in for an auth key that is not given; the first that is set counts.
const AUTH_KEY_VARIABLES: [&str; 2] = ["TS_AUTHKEY", "TS_AUTH_KEY"];

/// The environment variable that stands in for a control server's URL that is not given.
const CONTROL_URL_VARIABLE: &str = "TS_CONTROL_URL";

/// Messages of the control server that wait for the engine. A server is then not read any further.
const UPDATES_MAX: usize = 4;

/// Questions of programs that wait for the engine. Who asks more waits.
const REQUESTS_MAX: usize = 64;

/// Why a node cannot be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Nobody says which control server.
    #[error("no control server: give a control_url, or set TS_CONTROL_URL")]
    NoControlUrl,
    /// The control server's URL is none.
    #[error("control server's URL is not valid")]
    ControlUrl(#[from] ControlUrlError),
    /// State in memory ends with the process; the node then must, too.
    #[error("node without a state directory or store must be ephemeral")]
    NotEphemeral,
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A certificate of [`Builder::control_ca`] is none.
    #[error("certificate of the control server's authority is not valid")]
    Certificate(#[from] rustls::Error),
    /// No socket can be had.
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    /// The system has no randomness.
    #[error("no randomness")]
    Random(#[from] getrandom::Error),
}

/// The settings of a node.
#[derive(Debug, Default)]
pub struct Builder {
    control_url: Option<String>,
    auth_key: Option<String>,
    hostname: Option<String>,
    directory: Option<PathBuf>,
    store: Option<Arc<dyn StateStore>>,
    ephemeral: bool,
    port: u16,
    tags: Vec<String>,
    routes: Vec<IpNet>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Builder {
    /// The control server, such as `https://control.example.com`. Else the variable `TS_CONTROL_URL` says it.
    #[must_use]
    pub fn control_url(mut self, url: impl Into<String>) -> Self {
        self.control_url = Some(url.into());
        self
    }

    /// The preauth key to join with. Else the variables `TS_AUTHKEY` and then `TS_AUTH_KEY` say it; without any, somebody
    /// has to log in at the URL of [`Node::needs_login`]. Not used any more once the node has joined.
    #[must_use]
    pub fn auth_key(mut self, key: impl Into<String>) -> Self {
        self.auth_key = Some(key.into());
        self
    }

    /// The name to ask for; the program's, if none is given. The control server makes it unique.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// The directory to keep keys in, one for each node.
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The store to keep keys in, instead of a directory.
    #[must_use]
    pub fn state_store(mut self, store: Arc<dyn StateStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Whether the control server shall forget the node when it goes away. Then keys may be kept in memory alone.
    #[must_use]
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// The UDP port for peers; 0, the default, takes a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The tags to ask for, with `tag:`.
    #[must_use]
    pub fn advertise_tags(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.tags = tags.into_iter().collect();
        self
    }

    /// The subnets to route for others; `0.0.0.0/0` with `::/0` offers an exit node.
    #[must_use]
    pub fn advertise_routes(mut self, routes: impl IntoIterator<Item = IpNet>) -> Self {
        self.routes = routes.into_iter().collect();
        self
    }

    /// Trusts one more authority for the certificates of control server and relays, beside those of the system.
    #[must_use]
    pub fn control_ca(mut self, certificate: CertificateDer<'static>) -> Self {
        self.authorities.push(certificate);
        self
    }

    /// Makes the node and has it join. [`Node::up`] waits until it has.
    pub async fn build(self) -> Result<Node, BuildError> {
        let url = self.control_url.clone().or_else(|| variable(CONTROL_URL_VARIABLE));
        let url: ControlUrl = url.ok_or(BuildError::NoControlUrl)?.parse()?;
        let auth_key = self.auth_key.clone().filter(|key| !key.is_empty());
        let auth_key = auth_key.or_else(|| AUTH_KEY_VARIABLES.into_iter().find_map(variable));
        let store = self.open_store()?;
        let state = NodeState::load_or_make(&*store)?;
        let roots = Arc::new(self.roots()?);
        let hostname = self.hostname.clone().filter(|name| !name.is_empty());
        let disco = DiscoPrivate::generate()?;
        let identity = Identity {
            dialer: Dialer::new(url, (*roots).clone()),
            hostinfo: host::hostinfo(
                hostname.unwrap_or_else(host::program_name),
                self.tags.clone(),
                self.routes.clone(),
            ),
            auth_key: auth_key.unwrap_or_default(),
            ephemeral: self.ephemeral,
            disco: disco.public(),
        };
        let sockets = Sockets::bind(self.port).await.map_err(BuildError::Socket)?;
        let (stack, outgoing) = Stack::new(&Config::default()).map_err(BuildError::Socket)?;
        let (update_sender, updates) = mpsc::channel(UPDATES_MAX);
        let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (phase_sender, phase) = watch::channel(Phase::default());
        let (report_sender, report) = watch::channel(Report::default());
        let (key_sender, key) = watch::channel(state.node.clone());
        let (address_sender, addresses) = watch::channel(Vec::new());
        let (relay_sender, has_relay) = watch::channel(false);
        let parts = Parts {
            key,
            disco,
            sockets,
            stack: stack.clone(),
            outgoing,
            roots,
            updates,
            requests,
            report: report_sender,
            addresses: address_sender,
            has_relay: relay_sender,
        };
        let control = Control {
            identity,
            state,
            store,
            updates: update_sender,
            phase: phase_sender,
            report,
            key: key_sender,
        };
        let tasks = node::spawn_tasks(Engine::new(parts), control);
        let state = node::Watched { phase, addresses, has_relay };
        Ok(Node::new(stack, request_sender, state, tasks))
    }

    fn open_store(&self) -> Result<Arc<dyn StateStore>, BuildError> {
        match (&self.store, &self.directory) {
            (Some(store), _) => Ok(Arc::clone(store)),
            (None, Some(directory)) => {
                Ok(Arc::new(FileStore::open(directory).map_err(StateError::Io)?))
            }
            (None, None) if self.ephemeral => Ok(Arc::new(MemoryStore::default())),
            (None, None) => Err(BuildError::NotEphemeral),
        }
    }

    fn roots(&self) -> Result<RootCertStore, BuildError> {
        let mut roots = RootCertStore::empty();
        // A system without authorities, or with some that are damaged, may still reach a server by http.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in &self.authorities {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }
}

#[expect(clippy::disallowed_methods, reason = "the variables that programs know from tsnet")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
