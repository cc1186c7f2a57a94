//! A small client of our own that joins a tailnet, is seen, and leaves again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use mesh_client::{ControlClient, Dialer};
use mesh_derp_client::{Event, Options, RegionClient};
use mesh_keys::{DiscoPublic, MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, DerpNode, DerpRegion, Hostinfo, MapRequest, RegisterAuth, RegisterRequest,
    SecretText,
};
use rustls::RootCertStore;
use tokio::sync::mpsc;
use tokio::time::timeout;

const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// When clients say that their key expires in order to log out, in seconds since 1970.
///
/// Source: tailscale `control/controlclient/direct.go`, `TryLogout`.
const LOGOUT_SECOND: i64 = 123;

/// How long a relay may take to let a node in, of which it may have to hear first.
const LET_IN_MAX: Duration = Duration::from_secs(10);

/// Events of a relay that nobody has looked at yet.
const EVENTS_MAX: usize = 16;

/// An ephemeral node without a map stream. Its peers see it from [`Visitor::announce`] on, and no longer once it has
/// left.
#[derive(Debug)]
pub struct Visitor {
    client: ControlClient,
    private: NodePrivate,
    node_key: NodePublic,
    disco_key: DiscoPublic,
    hostname: String,
}

impl Visitor {
    /// Opens a channel of its own and registers with a reusable preauth key.
    pub async fn join(dialer: &Dialer, key: &str, hostname: &str) -> Result<Self> {
        let client = ControlClient::connect(dialer, &MachinePrivate::generate()?, VERSION).await?;
        let private = NodePrivate::generate()?;
        let node_key = private.public();
        // Peers never speak to it, so any bytes will do for a disco key.
        let disco_key = DiscoPublic::from_bytes(*node_key.as_bytes());
        let visitor = Self { client, private, node_key, disco_key, hostname: hostname.to_owned() };
        let auth = Some(RegisterAuth { auth_key: SecretText(key.to_owned()) });
        let request = RegisterRequest { auth, ephemeral: true, ..visitor.register_request() };
        let response = visitor.client.register(&request).await?;
        ensure!(response.machine_authorized, "{hostname} was refused: {response:?}");
        Ok(visitor)
    }

    /// The key it is known by.
    pub fn node_key(&self) -> NodePublic {
        self.node_key
    }

    /// Tells its disco key and an endpoint: only then do peers hear of it.
    pub async fn announce(&self) -> Result<()> {
        let request = MapRequest {
            version: VERSION,
            node_key: self.node_key,
            disco_key: self.disco_key,
            omit_peers: true,
            hostinfo: Some(self.hostinfo()),
            endpoints: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 41641))],
            ..MapRequest::default()
        };
        Ok(self.client.lite_update(&request).await?)
    }

    /// Connects to a relay on this machine, without a look at its certificate.
    pub fn at_relay(&self, port: u16) -> AtRelay {
        let node = DerpNode {
            host_name: Ipv4Addr::LOCALHOST.to_string(),
            derp_port: port.into(),
            insecure_for_tests: true,
            ..DerpNode::default()
        };
        let options = Options {
            region: Arc::new(DerpRegion { nodes: vec![node], ..DerpRegion::default() }),
            private: self.private.clone(),
            roots: Arc::new(RootCertStore::empty()),
            is_home: true,
        };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        AtRelay { client: RegionClient::spawn(options, sender), events }
    }

    /// Logs out.
    pub async fn leave(self) -> Result<()> {
        let expiry = Some(Timestamp::from_second(LOGOUT_SECOND)?);
        let request = RegisterRequest { expiry, ..self.register_request() };
        let response = self.client.register(&request).await?;
        ensure!(response.error.is_empty(), "{} cannot leave: {response:?}", self.hostname);
        Ok(())
    }

    fn register_request(&self) -> RegisterRequest {
        RegisterRequest {
            version: VERSION,
            node_key: self.node_key,
            hostinfo: Some(self.hostinfo()),
            ..RegisterRequest::default()
        }
    }

    fn hostinfo(&self) -> Box<Hostinfo> {
        let hostname = self.hostname.clone();
        Box::new(Hostinfo { hostname, os: "linux".to_owned(), ..Hostinfo::default() })
    }
}

/// A visitor's connection to a relay, which is begun anew whenever it ends.
#[derive(Debug)]
pub struct AtRelay {
    client: RegionClient,
    events: mpsc::Receiver<Event>,
}

impl AtRelay {
    /// Waits until the relay has let it in.
    pub async fn connected(&mut self) -> Result<()> {
        self.until(LET_IN_MAX, |event| matches!(event, Event::Connected { .. })).await
    }

    /// Waits until the connection ends.
    pub async fn cut_within(&mut self, deadline: Duration) -> Result<()> {
        self.until(deadline, |event| matches!(event, Event::Disconnected { .. })).await
    }

    async fn until(&mut self, deadline: Duration, is_it: impl Fn(&Event) -> bool) -> Result<()> {
        let wait = async {
            while !is_it(&self.events.recv().await.context("the connection was given up")?) {}
            Ok(())
        };
        timeout(deadline, wait).await.with_context(|| format!("not within {deadline:?}"))?
    }

    /// Fails if there is no connection.
    pub fn check_connected(&self) -> Result<()> {
        ensure!(self.client.status().is_connected, "the connection has ended");
        Ok(())
    }
}
