//! What a node is told when it is made, and how it comes to life.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_client::{ControlUrl, ControlUrlError, Dialer};
use mesh_keys::DiscoPrivate;
use mesh_stack::{Config, Stack};
use mesh_wire::{Hostinfo, SecretText};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, watch};

use crate::auth_key::{AuthKey, AuthKeyError, Workload};
use crate::control::{Control, Identity, Phase, Report};
use crate::core::Routing;
use crate::device::Device;
use crate::engine::{Engine, Parts, Sockets};
use crate::node::Node;
use crate::pinger::Pinger;
use crate::port_mapping::PortMapping;
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

/// The environment variable that keeps a node from asking the machine's gateway for a port.
const DISABLE_PORT_MAPPING_VARIABLE: &str = "TS_DISABLE_PORTMAPPER";

/// Why a node cannot be made.
///
/// ```
/// # use mesh_node::{BuildError, Node};
/// # mesh_testkit::example(async |tailnet| {
/// match Node::builder().control_url(tailnet.url()).build().await {
///     Err(BuildError::NotEphemeral) => println!("where are its keys to be kept?"),
///     Err(BuildError::State(error)) => println!("its keys cannot be used: {error}"),
///     Err(error) => return Err(error.into()),
///     Ok(_) => unreachable!("neither a state directory nor ephemeral"),
/// }
/// # Ok(()) });
/// ```
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
///
/// What is left out has a default, or an environment variable says it.
///
/// ```
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// use std::sync::Arc;
///
/// use mesh_node::MemoryStore;
///
/// # let url = tailnet.url();
/// let node = Node::builder()
///     .control_url(url)
///     .auth_key("tskey-auth-...")
///     .hostname("router")
///     .state_store(Arc::new(MemoryStore::default()))
///     .port(0)
///     .advertise_tags(["tag:router".to_owned()])
///     .advertise_routes(["192.0.2.0/24".parse()?])
///     .accept_routes(true)
///     .shields_up(false)
///     .exit_node([100, 64, 0, 9].into())
///     .build()
///     .await?;
/// let own = node.up().await?.node.ok_or("not told yet")?;
/// assert_eq!(own.tags, ["tag:router"]);
/// # let directory = tempfile::tempdir()?;
///
/// let kept = Node::builder().control_url(url).auth_key("tskey-auth-...").state_dir(directory.path());
/// let passing = Node::builder().control_url(url).auth_key("tskey-auth-...").ephemeral(true);
/// # let certificate = vec![0x30, 0];
/// let private = Node::builder().control_url("https://control.example.com").control_ca(certificate.into());
/// let workload = Node::builder()
///     .client_id("client-...?ephemeral=true")
///     .id_token("eyJ...")
///     .advertise_tags(["tag:job".to_owned()]);
/// # drop(workload);
/// # kept.build().await?;
/// # passing.build().await?;
/// # drop(private);
/// # Ok(()) });
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    control_url: Option<String>,
    auth_key: Option<SecretText>,
    workload: Workload,
    hostname: Option<String>,
    directory: Option<PathBuf>,
    store: Option<Arc<dyn StateStore>>,
    ephemeral: bool,
    port: u16,
    tags: Vec<String>,
    routes: Vec<IpNet>,
    routing: Routing,
    authorities: Vec<CertificateDer<'static>>,
    device: Option<Box<dyn Device>>,
}

impl Builder {
    /// The control server, such as `https://control.example.com`. Else the variable `TS_CONTROL_URL` says it.
    ///
    /// [Example](Self)
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
    ///
    /// [Example](Self)
    #[must_use]
    pub fn auth_key(mut self, key: impl Into<String>) -> Self {
        self.auth_key = Some(SecretText(key.into()));
        self
    }

    /// The OAuth client that a workload is, which is believed for its [`Self::id_token`]: it makes a key for the tags of
    /// [`Self::advertise_tags`], by way of the control server. With `?ephemeral=true` and `&preauthorized=true`: once one of them
    /// is written, both are false unless written. Else the variable `TS_CLIENT_ID` says it. Used if there is no auth key.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.workload.client_id = id.into();
        self
    }

    /// The ID token, a JWT, that the place where a workload runs has issued to it for [`Self::client_id`]. Else the variable
    /// `TS_ID_TOKEN` says it; with `TS_AUDIENCE` alone a node cannot be made, for nobody is asked for a token here.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn id_token(mut self, token: impl Into<String>) -> Self {
        self.workload.id_token = SecretText(token.into());
        self
    }

    /// The name to ask for; the program's, if none is given. The control server makes it unique.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// The directory to keep keys in, one for each node.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The store to keep keys in, instead of a directory.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn state_store(mut self, store: Arc<dyn StateStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Whether the control server shall forget the node when it goes away. Then keys may be kept in memory alone.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// The UDP port for peers; 0, the default, takes a free one. The machine's gateway is asked to lead a public port to it, by
    /// NAT-PMP or PCP, unless the variable `TS_DISABLE_PORTMAPPER` is `1`.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The tags to ask for, with `tag:`.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn advertise_tags(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.tags = tags.into_iter().collect();
        self
    }

    /// The subnets to route for others; `0.0.0.0/0` with `::/0` offers an exit node.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn advertise_routes(mut self, routes: impl IntoIterator<Item = IpNet>) -> Self {
        self.routes = routes.into_iter().collect();
        self
    }

    /// Whether to reach the subnets that peers route. Without it only peers themselves are reached.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn accept_routes(mut self, accept_routes: bool) -> Self {
        self.routing.accept_routes = accept_routes;
        self
    }

    /// The address of the peer through which all is reached that is not in the tailnet. It must be an exit node, and
    /// approved as one; while it is not, nothing outside is reached. Names outside are looked up by the machine itself.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn exit_node(mut self, exit_node: IpAddr) -> Self {
        self.routing.exit_node = Some(exit_node);
        self
    }

    /// Whether peers may open nothing to this node, whatever policy says. Answers to what it has sent come in.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn shields_up(mut self, shields_up: bool) -> Self {
        self.routing.shields_up = shields_up;
        self
    }

    /// The network interface of the machine that is to be the node's: packets that the packet filter lets in go to it,
    /// unless a listener, a fallback or a connection of this program waits for them, and the machine's packets for the tailnet
    /// come from it, with the node's addresses or those of routes that it serves. Addresses and routes of the interface
    /// are the caller's business: [`Node::ips`] and [`Node::watch`] tell which. Together with an exit node it needs rules that
    /// keep the node's own packets to control server, relays and peers out of it.
    ///
    /// [Example](Device)
    #[must_use]
    pub fn tun(mut self, device: impl Device) -> Self {
        self.device = Some(Box::new(device));
        self
    }

    /// Trusts one more authority for the certificates of control server and relays, beside those of the system.
    ///
    /// [Example](Self)
    #[must_use]
    pub fn control_ca(mut self, certificate: CertificateDer<'static>) -> Self {
        self.authorities.push(certificate);
        self
    }

    /// Makes the node and has it join. [`Node::up`] waits until it has.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// let node = Node::builder().control_url(tailnet.url()).auth_key("tskey-auth-...").ephemeral(true).build().await?;
    /// node.up().await?;
    /// # fn can_be_spawned(_: impl Send) {}
    /// # can_be_spawned(Node::builder().build());
    /// # Ok(()) });
    /// ```
    pub async fn build(self) -> Result<Node, BuildError> {
        let url = self.control_url.clone().or_else(|| variable(CONTROL_URL_VARIABLE));
        let url: ControlUrl = url.ok_or(BuildError::NoControlUrl)?.parse()?;
        let store = self.open_store()?;
        let state = NodeState::load_or_make(&*store)?;
        let roots = Arc::new(self.roots()?);
        let force_login = is_set(FORCE_LOGIN_VARIABLE);
        let has_joined = state.is_registered && !force_login;
        let auth_key = self.find_auth_key()?.resolve(has_joined, &self.tags, &url, &roots).await?;
        let disco = DiscoPrivate::generate()?;
        let identity = Identity {
            dialer: Dialer::new(url, (*roots).clone()),
            hostinfo: self.hostinfo(),
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
        let (port_mapping, port_mapped) = PortMapping::new(sockets.port());
        let port_mapping = may_map_port().then_some(port_mapping);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let has_device = self.device.is_some();
        let parts = Parts {
            key,
            disco,
            routing: self.routing,
            never_direct: is_set(NEVER_DIRECT_VARIABLE),
            sockets,
            stack: stack.clone(),
            outgoing,
            device: self.device,
            roots,
            updates,
            requests,
            port_mapped,
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
        let tasks = node::spawn_tasks(Engine::new(parts), control, port_mapping);
        let state = node::Watched { phase, addresses, has_relay, events };
        Ok(Node::new(stack, request_sender, command_sender, state, has_device, tasks))
    }

    /// What the control server is told of the node.
    fn hostinfo(&self) -> Hostinfo {
        let hostname = self.hostname.clone().filter(|name| !name.is_empty());
        let hostname = hostname.unwrap_or_else(host::program_name);
        let mut hostinfo = host::hostinfo(hostname, self.tags.clone(), self.routes.clone());
        hostinfo.userspace = Some(self.device.is_none());
        hostinfo.shields_up = self.routing.shields_up;
        hostinfo
    }

    /// What the program or its environment says of an auth key.
    fn find_auth_key(&self) -> Result<AuthKey, AuthKeyError> {
        let given = self.auth_key.as_ref().map(|key| key.0.clone()).filter(|key| !key.is_empty());
        let given = given.or_else(|| AUTH_KEY_VARIABLES.into_iter().find_map(variable));
        AuthKey::choose(&given.unwrap_or_default(), self.workload.clone().or(variable))
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

/// Whether the machine's gateway is asked for a port. It serves direct ways alone.
fn may_map_port() -> bool {
    !is_set(DISABLE_PORT_MAPPING_VARIABLE) && !is_set(NEVER_DIRECT_VARIABLE)
}

#[expect(clippy::disallowed_methods, reason = "the variables that programs know from tsnet")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a variable says yes, in one of the words that tsnet knows.
fn is_set(name: &str) -> bool {
    let value = variable(name);
    value.is_some_and(|value| matches!(&*value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}
