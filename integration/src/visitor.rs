//! A small client of our own that joins a tailnet, is seen, and leaves again.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use mesh_client::{ControlClient, Dialer};
use mesh_keys::{DiscoPublic, MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, Hostinfo, MapRequest, RegisterAuth, RegisterRequest, SecretText,
};

const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// When clients say that their key expires in order to log out, in seconds since 1970.
///
/// Source: tailscale `control/controlclient/direct.go`, `TryLogout`.
const LOGOUT_SECOND: i64 = 123;

/// An ephemeral node without a map stream. Its peers see it from [`Visitor::announce`] on, and no longer once it has
/// left.
#[derive(Debug)]
pub struct Visitor {
    client: ControlClient,
    node_key: NodePublic,
    disco_key: DiscoPublic,
    hostname: String,
}

impl Visitor {
    /// Opens a channel of its own and registers with a reusable preauth key.
    pub async fn join(dialer: &Dialer, key: &str, hostname: &str) -> Result<Self> {
        let client = ControlClient::connect(dialer, &MachinePrivate::generate()?, VERSION).await?;
        let node_key = NodePrivate::generate()?.public();
        // Peers never speak to it, so any bytes will do for a disco key.
        let disco_key = DiscoPublic::from_bytes(*node_key.as_bytes());
        let visitor = Self { client, node_key, disco_key, hostname: hostname.to_owned() };
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
