//! A stock client in a driver process.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::driver::Driver;
use crate::environment;
use crate::eventually::eventually;
use crate::server::{BASE_DOMAIN, Server};
use crate::status::{Peer, Status};

/// How long a driver may take for a command that does not wait for others.
const COMMAND_MAX: Duration = Duration::from_secs(15);
/// How long a transfer may take.
const TRANSFER_MAX: Duration = Duration::from_mins(1);
/// How long a client may take to see what the server knows, unless a scenario says otherwise.
const SEEN_MAX: Duration = Duration::from_secs(15);
/// For how long a client hears nothing before it counts as settled.
const QUIET: Duration = Duration::from_secs(2);
/// How long a client may take to shut down.
const CLOSE_MAX: Duration = Duration::from_secs(15);

/// Stays closed, so that whatever a client sends to the world fails at once. Loopback needs no proxy.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Which client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Client {
    /// tsnet, the newest version that is tested.
    #[default]
    Tsnet,
    /// tsnet, the oldest version that is promised to work.
    TsnetOld,
    /// The `tailscale` crate.
    TailscaleRs,
    /// The bundled node.
    Ours,
}

/// What kind of node a client is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// Which client.
    pub client: Client,
    /// It sends nothing directly, only through the relay.
    pub relay_only: bool,
    /// It uploads logs unless the server tells it not to.
    pub may_upload_logs: bool,
}

impl Kind {
    /// A client that sends nothing directly.
    pub fn by_relay(client: Client) -> Self {
        Self { client, relay_only: true, ..Self::default() }
    }
}

/// What to bring a node up with. Unset fields keep what the node had.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Up<'a> {
    /// The preauth key to log in with; without one the login is interactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_key: Option<&'a str>,
    /// The tags it asks for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub advertise_tags: &'a [&'a str],
    /// It asks to be ephemeral.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// It logs in anew, although it is logged in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_reauth: bool,
}

/// A verified transfer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Transfer {
    /// From the dial to the last byte.
    pub elapsed_ms: f64,
    /// The peer's UDP address in use; empty when relayed.
    #[serde(default)]
    pub cur_addr: String,
}

/// How a client has taken in the messages of its map streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Messages that were applied in place, at a cost that does not grow with the tailnet.
    pub in_place: i64,
    /// Messages that the whole netmap was built anew for.
    pub rebuilt: i64,
}

/// Whose address it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Whois {
    /// `nodekey:...`
    pub key: String,
    /// Full name of the node.
    pub name: String,
    /// Login name of its user.
    #[serde(default)]
    pub user: String,
    /// What it may do on this node, by the packet filter: app capabilities, each with its values.
    #[serde(default)]
    pub cap_map: Map<String, Value>,
}

/// A client and the state it keeps in the lab.
#[derive(Debug)]
pub struct Node<'a> {
    server: &'a Server<'a>,
    name: String,
    kind: Kind,
    directory: PathBuf,
    driver: Driver,
}

impl<'a> Node<'a> {
    /// Starts a client that is not logged in, or, if a node of this name was in the lab before, its restart.
    pub fn spawn(server: &'a Server<'a>, name: &str, kind: Kind) -> Result<Self> {
        let program = environment::required(match kind.client {
            Client::Tsnet => environment::TSNET,
            Client::TsnetOld => environment::TSNET_OLD,
            Client::TailscaleRs => environment::TAILSCALE_RS,
            Client::Ours => environment::OURS,
        })?;
        let directory = server.lab.directory(name)?;
        let variables = variables(server, kind, &directory.display().to_string());
        let driver = Driver::spawn(&program, &variables, &server.lab.log(name))?;
        Ok(Self { server, name: name.to_owned(), kind, directory, driver })
    }

    /// Starts a client, logs it in with a preauth key and waits until it runs.
    pub async fn join(server: &'a Server<'a>, name: &str, kind: Kind, key: &str) -> Result<Self> {
        let node = Self::spawn(server, name, kind)?;
        node.up(Up { auth_key: Some(key), ..Up::default() }).await?;
        node.running().await?;
        Ok(node)
    }

    /// Ends the process in order, and starts it again: a restart of the machine it is on.
    pub async fn restart(self) -> Result<Self> {
        let (server, name, kind) = (self.server, self.name.clone(), self.kind);
        self.close().await?;
        Self::spawn(server, &name, kind)
    }

    /// Shuts the client down in order.
    pub async fn close(self) -> Result<()> {
        self.driver.call("close", json!({}), CLOSE_MAX).await?;
        self.driver.ended(CLOSE_MAX).await
    }

    /// The host name it asks for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which client it is.
    pub fn client(&self) -> Client {
        self.kind.client
    }

    /// Begins a login. The outcome is in the status.
    pub async fn up(&self, up: Up<'_>) -> Result<()> {
        let mut args = serde_json::to_value(up)?;
        args["control_url"] = json!(self.server.url());
        args["dir"] = json!(self.directory);
        args["hostname"] = json!(self.name);
        self.call::<Value>("up", args).await?;
        Ok(())
    }

    /// Runs a command of the driver.
    pub async fn call<T: DeserializeOwned>(&self, cmd: &str, args: impl Serialize) -> Result<T> {
        self.call_within(COMMAND_MAX, cmd, args).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        deadline: Duration,
        cmd: &str,
        args: impl Serialize,
    ) -> Result<T> {
        let result = self.driver.call(cmd, args, deadline).await;
        let result = result.with_context(|| self.name.clone())?;
        serde_json::from_value(result).with_context(|| format!("{}: result of {cmd}", self.name))
    }

    /// What the client says of itself and others.
    pub async fn status(&self) -> Result<Status> {
        self.call("status", json!({})).await
    }

    /// Waits until the client's status satisfies `check`, and returns what that makes of it.
    pub async fn until<T>(&self, what: &str, check: impl Fn(&Status) -> Result<T>) -> Result<T> {
        self.until_within(SEEN_MAX, what, check).await
    }

    /// As [`Self::until`], with a deadline that matters.
    pub async fn until_within<T>(
        &self,
        deadline: Duration,
        what: &str,
        check: impl Fn(&Status) -> Result<T>,
    ) -> Result<T> {
        let what = format!("{}: {what}", self.name);
        eventually(deadline, &what, async || check(&self.status().await?)).await
    }

    /// Waits until the client is in a tailnet, and returns what it says of itself.
    pub async fn running(&self) -> Result<Peer> {
        self.until("runs", |status| {
            let own = status.own()?;
            ensure!(status.state == "Running", "state {}, error {:?}", status.state, status.error);
            Ok(own.clone())
        })
        .await
    }

    /// Waits until packets can be sent to a peer, and returns it.
    pub async fn reaches(&self, name: &str) -> Result<Peer> {
        self.until(&format!("can reach {name}"), |status| {
            let peer = status.peer(name)?;
            peer.check_reachable()?;
            Ok(peer.clone())
        })
        .await
    }

    /// Waits until a peer is the router of a subnet route, and returns it.
    pub async fn routed_by(&self, name: &str, route: &str) -> Result<Peer> {
        self.until(&format!("is routed to {route} by {name}"), |status| {
            let peer = status.peer(name)?;
            let routes = &peer.primary_routes;
            ensure!(routes.iter().any(|carried| carried == route), "it carries {routes:?}");
            Ok(peer.clone())
        })
        .await
    }

    /// Waits until a peer is gone.
    pub async fn loses(&self, name: &str) -> Result<()> {
        self.until(&format!("no longer sees {name}"), |status| {
            ensure!(status.peer(name).is_err(), "{name} is still there");
            Ok(())
        })
        .await
    }

    /// Waits until it knows who has the address of a peer, as this one is. As [`Self::reaches`], for a client that lists nobody.
    pub async fn knows(&self, peer: &Peer) -> Result<()> {
        let what = format!("{} knows {}", self.name, peer.name);
        eventually(SEEN_MAX, &what, async || {
            let whois = self.whois(peer.ipv4()?).await?;
            ensure!(whois.name == peer.name && whois.key == peer.key, "it knows {whois:?}");
            Ok(())
        })
        .await
    }

    /// Waits until it knows nobody with the address of a peer.
    pub async fn forgets(&self, peer: &Peer) -> Result<()> {
        let what = format!("{} forgets {}", self.name, peer.name);
        eventually(SEEN_MAX, &what, async || {
            ensure!(self.whois(peer.ipv4()?).await.is_err(), "it knows who it is");
            Ok(())
        })
        .await
    }

    /// Offers to carry routes, in place of those it offered before.
    pub async fn advertise_routes(&self, routes: &[&str]) -> Result<()> {
        self.call("set_prefs", json!({"advertise_routes": routes})).await
    }

    /// Uses the subnet routers that it is told of.
    pub async fn accept_routes(&self) -> Result<()> {
        self.call("set_prefs", json!({"accept_routes": true})).await
    }

    /// Plays the network behind a subnet router: sends back what comes to any TCP port of any address in a route.
    pub async fn serve_route(&self, route: &str) -> Result<()> {
        self.call("serve_route", json!({"prefix": route})).await
    }

    /// Serves a TCP port that sends back what comes.
    pub async fn echo(&self, port: u16) -> Result<()> {
        self.listen(port, "echo").await
    }

    /// Serves a TCP port that takes bytes in and says at the end what came.
    pub async fn sink(&self, port: u16) -> Result<()> {
        self.listen(port, "sink").await
    }

    /// Serves a TCP port that gives as many bytes as it is asked for.
    pub async fn source(&self, port: u16) -> Result<()> {
        self.listen(port, "source").await
    }

    async fn listen(&self, port: u16, mode: &str) -> Result<()> {
        self.call("listen_tcp", json!({"port": port, "mode": mode})).await
    }

    /// Sends bytes to an echo port, an address or a MagicDNS name with a port, and verifies what comes back.
    pub async fn transfer(&self, to: &str, bytes: usize) -> Result<Transfer> {
        self.exchange(to, bytes, "echo").await
    }

    /// Sends bytes to a peer's sink, which says whether all came.
    pub async fn send_to(&self, peer: &Peer, port: u16, bytes: usize) -> Result<Transfer> {
        self.exchange(&peer.port(port)?.to_string(), bytes, "sink").await
    }

    /// Takes bytes from a peer's source and verifies them.
    pub async fn receive_from(&self, peer: &Peer, port: u16, bytes: usize) -> Result<Transfer> {
        self.exchange(&peer.port(port)?.to_string(), bytes, "source").await
    }

    async fn exchange(&self, to: &str, bytes: usize, mode: &str) -> Result<Transfer> {
        self.call_within(
            TRANSFER_MAX,
            "transfer",
            json!({"addr": to, "bytes": bytes, "mode": mode}),
        )
        .await
    }

    /// As [`Self::transfer`], to a peer's IPv4 address.
    pub async fn transfer_to(&self, peer: &Peer, port: u16, bytes: usize) -> Result<Transfer> {
        self.transfer(&peer.port(port)?.to_string(), bytes).await
    }

    /// Waits until packets to a peer go over UDP without the relay.
    pub async fn reaches_directly(&self, peer: &Peer) -> Result<()> {
        let ip = peer.ipv4()?;
        eventually(SEEN_MAX, &format!("{} reaches {} directly", self.name, peer.name), async || {
            let pong: Value = self.call("ping", json!({"ip": ip})).await?;
            ensure!(pong["endpoint"].is_string(), "it is reached by {pong}");
            Ok(())
        })
        .await
    }

    /// Whose address it is, as the client knows.
    pub async fn whois(&self, addr: IpAddr) -> Result<Whois> {
        self.call("whois", json!({"addr": addr})).await
    }

    /// A client metric of this process.
    pub async fn metric(&self, name: &str) -> Result<i64> {
        let metrics: Value = self.call("metrics", json!({})).await?;
        metrics[name].as_i64().with_context(|| format!("{}: no metric {name}", self.name))
    }

    /// How often the client has built its whole netmap anew, the first time included. Not in the old version.
    pub async fn full_rebuilds(&self) -> Result<i64> {
        self.metric("controlclient_map_response_handled_full_rebuild").await
    }

    /// How the client has taken in what it was told, once it has heard nothing for a while: what it says of itself in
    /// its first seconds comes back to it. Not in the old version.
    pub async fn settled(&self) -> Result<Taken> {
        let mut before = self.taken().await?;
        loop {
            sleep(QUIET).await;
            let after = self.taken().await?;
            if after == before {
                return Ok(after);
            }
            before = after;
        }
    }

    async fn taken(&self) -> Result<Taken> {
        let metrics: Value = self.call("metrics", json!({})).await?;
        // A counter appears with its first event.
        let count = |name: &str| metrics[name].as_i64().unwrap_or_default();
        Ok(Taken {
            in_place: count("controlclient_map_response_handled_incrementally"),
            rebuilt: count("controlclient_map_response_handled_full_rebuild"),
        })
    }

    /// How many messages of map streams the client has received, of whatever kind.
    pub async fn map_messages(&self) -> Result<i64> {
        self.metric("controlclient_map_response_message").await
    }

    /// What the client has logged.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(self.server.lab.log(&self.name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The name that others find a node under.
    pub fn full_name(given_name: &str) -> String {
        format!("{given_name}.{BASE_DOMAIN}")
    }
}

/// What makes a client behave on one machine without a network (PROTOCOL 10.1), each with its reason.
fn variables(server: &Server<'_>, kind: Kind, directory: &str) -> Vec<(&'static str, String)> {
    let on = || "1".to_owned();
    let mut variables = vec![
        ("HTTP_PROXY", NOWHERE.to_owned()),
        ("HTTPS_PROXY", NOWHERE.to_owned()),
        ("TS_LOGS_DIR", directory.to_owned()), // not below the home of who runs the tests
        ("TS_PANIC_IF_HIT_MAIN_CONTROL", on()),
        ("TS_DISABLE_PORTMAPPER", on()), // asks the router of who runs the tests for nothing
        ("TS_DISABLE_UPNP", on()),
        ("TS_ASSUME_NETWORK_UP_FOR_TEST", on()), // else control pauses without a default route
    ];
    if !kind.may_upload_logs {
        variables.push(("TS_NO_LOGS_NO_SUPPORT", on()));
    }
    if kind.relay_only {
        variables.push(match kind.client {
            Client::TsnetOld => ("TS_DEBUG_ALWAYS_USE_DERP", on()),
            Client::Tsnet | Client::TailscaleRs | Client::Ours => {
                ("TS_DEBUG_NEVER_DIRECT_UDP", on())
            }
        });
    }
    if let Some(root) = server.root() {
        variables.push(("SSL_CERT_FILE", root));
    }
    variables
}
