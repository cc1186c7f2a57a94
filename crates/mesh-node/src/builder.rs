//! What a node is told when it is made, and how it comes to life.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_client::{ControlUrl, ControlUrlError, Dialer};
use mesh_keys::DiscoPrivate;
use mesh_stack::{Config, Stack};
use mesh_wire::SecretText;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, watch};

use crate::auth_key::{AuthKey, AuthKeyError};
use crate::control::{Control, Identity, Phase, Report};
use crate::core::Routing;
use crate::engine::{Engine, Parts, Sockets};
use crate::node::Node;
use crate::pinger::Pinger;
use crate::state::{FileStore, MemoryStore, NodeState, StateError, StateStore};
use crate::watch::EVENTS_MAX;
use crate::{host, node};

/// Environment variables that stand in for an auth key that is not given; the first that is set counts.
const AUTH_KEY_VARIABLES: [&str; 3] = ["TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET"];

/// The environment variable that stands in for a control server's URL that is not given.
const CONTROL_URL_VARIABLE: &str = "TS_CONTROL_URL";

/// Messages of the control server that wait for the engine. A server is then not read any further.
const UPDATES_MAX: usize = 4;

/// Questions of programs that wait for the engine. Who asks more waits.
const REQUESTS_MAX: usize = 64;

/// Orders of programs that wait for the session with the control server.
const COMMANDS_MAX: usize = 4;

/// The environment variable that has a node log in with its auth key although it has joined before.
const FORCE_LOGIN_VARIABLE: &str = "TSNET_FORCE_LOGIN";

/// The environment variable that has a node reach all peers through relays, for tests and for those in doubt.
const NEVER_DIRECT_VARIABLE: &str = "TS_DEBUG_NEVER_DIRECT_UDP";

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
    /// The secret of an OAuth client yields no auth key.
    #[error(transparent)]
    AuthKey(#[from] AuthKeyError),
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
    auth_key: Option<SecretText>,
    hostname: Option<String>,
    directory: Option<PathBuf>,
    store: Option<Arc<dyn StateStore>>,
    ephemeral: bool,
    port: u16,
    tags: Vec<String>,
    routes: Vec<IpNet>,
    routing: Routing,
    authorities: Vec<CertificateDer<'static>>,
}

impl Builder {
    /// The control server, such as `https://control.example.com`. Else the variable `TS_CONTROL_URL` says it.
    #[must_use]
    pub fn control_url(mut self, url: impl Into<String>) -> Self {
        self.control_url = Some(url.into());
        self
    }

    /// The preauth key to join with, or the secret of an OAuth client that makes one for the tags of [`Self::advertise_tags`]:
    /// `tskey-client-...`, with `?ephemeral=false`, `&preauthorized=true` and `&baseURL=` of its server if that is not the control
    /// server. Else the variables `TS_AUTHKEY`, `TS_AUTH_KEY` and `TS_CLIENT_SECRET` say it, in this order; without any, somebody
    /// has to log in at the URL of [`Node::needs_login`]. Once the node has joined it is used no more, until the
    /// node is logged out, or has expired or was deleted, and then is started again or told to [`Node::reauthenticate`]; or at
    /// once, if the variable `TSNET_FORCE_LOGIN` is `1`.
    #[must_use]
    pub fn auth_key(mut self, key: impl Into<String>) -> Self {
        self.auth_key = Some(SecretText(key.into()));
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

    /// Whether to reach the subnets that peers route. Without it only peers themselves are reached.
    #[must_use]
    pub fn accept_routes(mut self, accept_routes: bool) -> Self {
        self.routing.accept_routes = accept_routes;
        self
    }

    /// The address of the peer through which all is reached that is not in the tailnet. It must be an exit node, and
    /// approved as one; while it is not, nothing outside is reached. Names outside are looked up by the machine itself.
    #[must_use]
    pub fn exit_node(mut self, exit_node: IpAddr) -> Self {
        self.routing.exit_node = Some(exit_node);
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
        let store = self.open_store()?;
        let state = NodeState::load_or_make(&*store)?;
        let roots = Arc::new(self.roots()?);
        let force_login = variable(FORCE_LOGIN_VARIABLE).is_some_and(|value| is_true(&value));
        let has_joined = state.is_registered && !force_login;
        let auth_key = self.find_auth_key(&url, &roots, has_joined).await?;
        let hostname = self.hostname.clone().filter(|name| !name.is_empty());
        let disco = DiscoPrivate::generate()?;
        let identity = Identity {
            dialer: Dialer::new(url, (*roots).clone()),
            hostinfo: host::hostinfo(
                hostname.unwrap_or_else(host::program_name),
                self.tags.clone(),
                self.routes.clone(),
            ),
            auth_key,
            ephemeral: self.ephemeral,
            disco: disco.public(),
        };
        let sockets = Sockets::bind(self.port).await.map_err(BuildError::Socket)?;
        let (stack, outgoing) = Stack::new(&Config::default()).map_err(BuildError::Socket)?;
        let (update_sender, updates) = mpsc::channel(UPDATES_MAX);
        let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (phase_sender, phase) = watch::channel(Phase::default());
        let (report_sender, report) = watch::channel(Report::default());
        let (key_sender, key) = watch::channel(state.node.clone());
        let (address_sender, addresses) = watch::channel(Vec::new());
        let (relay_sender, has_relay) = watch::channel(false);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let parts = Parts {
            key,
            disco,
            routing: self.routing,
            never_direct: variable(NEVER_DIRECT_VARIABLE).is_some_and(|value| is_true(&value)),
            sockets,
            stack: stack.clone(),
            outgoing,
            roots,
            updates,
            requests,
            report: report_sender,
            addresses: address_sender,
            has_relay: relay_sender,
            events: events.clone(),
        };
        let control = Control {
            identity,
            state,
            store,
            updates: update_sender,
            phase: phase_sender,
            report,
            key: key_sender,
            commands,
            force_login,
            pinger: Pinger { stack: stack.clone(), requests: request_sender.clone() },
        };
        let tasks = node::spawn_tasks(Engine::new(parts), control);
        let state = node::Watched { phase, addresses, has_relay, events };
        Ok(Node::new(stack, request_sender, command_sender, state, tasks))
    }

    /// The key to join with; empty if there is none. An OAuth client makes one only if the node has not joined before.
    async fn find_auth_key(
        &self,
        url: &ControlUrl,
        roots: &RootCertStore,
        has_joined: bool,
    ) -> Result<SecretText, AuthKeyError> {
        let given = self.auth_key.as_ref().map(|key| key.0.clone()).filter(|key| !key.is_empty());
        let given = given.or_else(|| AUTH_KEY_VARIABLES.into_iter().find_map(variable));
        match AuthKey::parse(&given.unwrap_or_default())? {
            AuthKey::Plain(key) => Ok(key),
            AuthKey::Client(_) if has_joined => Ok(SecretText::default()),
            AuthKey::Client(client) => client.make_key(&self.tags, url, roots).await,
        }
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

/// Whether a variable says yes, in one of the words that tsnet knows.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
