//! The node of this process: bringing it up, and what it knows of itself and of others.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tailscale::{AuthState, Config, Device, NodeInfo, keys::PersistState};
use ts_control::NodeStatus;
use url::Url;

/// How long a question to the client may wait for its control connection before the answer counts as unknown.
const UNKNOWN_AFTER: Duration = Duration::from_millis(200);
/// How long the client may take to shut down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The one node of this process. The default has not been brought up.
#[derive(Default)]
pub struct Node {
    device: Option<Arc<Device>>,
}

/// What `up` takes: the tsnet driver's arguments, of which this client has these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpArgs {
    control_url: Url,
    dir: PathBuf,
    auth_key: Option<String>,
    hostname: Option<String>,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    force_reauth: bool,
}

impl Node {
    /// Starts the node from the keys in its directory, and returns without waiting for the outcome. A new login is a start with
    /// another node key: the client has no other way.
    pub async fn up(&mut self, args: UpArgs) -> Result<Value> {
        ensure!(self.device.is_none(), "this client cannot be brought up twice");
        let keys = args.dir.join("keys.json");
        if args.force_reauth {
            replace_node_key(&keys)?;
        }
        let mut config = Config::default_with_key_file(keys).await?;
        config.control_server_url = args.control_url;
        config.requested_hostname = args.hostname;
        config.ephemeral = args.ephemeral;
        let device = Device::new(&config, args.auth_key).await?;
        self.device = Some(Arc::new(device));
        Ok(Value::Null)
    }

    /// The client, once it was brought up.
    pub fn device(&self) -> Result<Arc<Device>> {
        self.device.clone().context("the node was never brought up")
    }

    /// Shuts the client down, if nothing else uses it any more.
    pub async fn close(&mut self) -> Result<Value> {
        if let Some(device) = self.device.take().and_then(Arc::into_inner) {
            device.shutdown(Some(CLOSE_TIMEOUT)).await;
        }
        Ok(Value::Null)
    }
}

/// Puts another node key in the place of the one in a key file. The machine stays the same.
fn replace_node_key(path: &Path) -> Result<()> {
    let mut file: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut fresh = serde_json::to_value(PersistState::default())?;
    let place = file.pointer_mut("/key_state/node_key").context("no node key in the key file")?;
    *place = fresh["node_key"].take();
    Ok(std::fs::write(path, file.to_string())?)
}

/// The node's state in the words of the tsnet driver. This client says nothing of its peers.
pub async fn status(device: &Device) -> Result<Value> {
    let auth_url = match known(device.is_authorized()).await? {
        Some(AuthState::NotAuthorized(url)) => Some(url),
        Some(AuthState::Authorized) | None => None,
    };
    let own = match auth_url {
        Some(_) => None,
        None => known(device.self_node()).await?,
    };
    let state = match (&own, &auth_url) {
        (Some(_), _) => "Running",
        (None, Some(_)) => "NeedsLogin",
        (None, None) => "Starting",
    };
    Ok(json!({
        "state": state,
        "auth_url": auth_url,
        "self": own.as_ref().map(report),
    }))
}

/// The answer to a question, or nothing while the client waits for its control server.
async fn known<T>(
    question: impl Future<Output = Result<T, tailscale::Error>>,
) -> Result<Option<T>> {
    match tokio::time::timeout(UNKNOWN_AFTER, question).await {
        Ok(answer) => Ok(Some(answer?)),
        Err(_) => Ok(None),
    }
}

/// What `whois` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoisArgs {
    /// `IP` or `IP:port`.
    addr: String,
}

/// Whose address it is. This client keeps no user profiles.
pub async fn whois(device: &Device, args: WhoisArgs) -> Result<Value> {
    let ip: IpAddr = match args.addr.parse::<SocketAddr>() {
        Ok(addr) => addr.ip(),
        Err(_) => args.addr.parse().context("not an address")?,
    };
    let peer = device.peer_by_tailnet_ip(ip).await?.context("peer not found")?;
    Ok(report(&peer))
}

fn report(node: &NodeInfo) -> Value {
    json!({
        "key": node.node_key.to_string(),
        "name": node.fqdn(false),
        "addresses": [node.tailnet_address.ipv4.addr().to_string(), node.tailnet_address.ipv6.addr().to_string()],
        "tags": node.tags,
        "online": matches!(node.status, NodeStatus::Online),
    })
}
