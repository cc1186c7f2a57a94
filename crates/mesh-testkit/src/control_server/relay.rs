//! The one relay of a tailnet, with STUN, on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Certificate, Relay, ServiceHandle, generate_self_signed};
use mesh_wire::{DerpMap, DerpNode, DerpRegion, DerpRegionId};
use tokio_util::sync::CancellationToken;

const REGION: DerpRegionId = DerpRegionId(1);

/// A region of one relay.
#[derive(Debug)]
pub struct Region {
    /// What nodes are told of it.
    pub derp_map: Arc<DerpMap>,
    /// Whose end is the relay's.
    _services: [ServiceHandle; 2],
}

impl Region {
    /// Starts the relay on ports that are free.
    pub async fn spawn() -> Result<Self> {
        let (host, cancel) = (IpAddr::from(Ipv4Addr::LOCALHOST), CancellationToken::new());
        let relay = Relay::new(DerpPrivate::generate()?, Arc::new(|_: &NodePublic| true), cancel);
        let now = now();
        let certificate = Certificate::from_pem(&generate_self_signed(&host.to_string(), now)?)?;
        let cert_name = certificate.pin().context("certificate has no pin")?;
        let tls = certificate.server_config(&relay.public_key(), now)?;
        let derp = relay.spawn_tls_listener(SocketAddr::new(host, 0), tls).await?;
        let stun = relay.spawn_stun_listener(SocketAddr::new(host, 0)).await?;
        let node = DerpNode {
            name: "1a".to_owned(),
            region_id: REGION,
            host_name: host.to_string(),
            ipv4: host.to_string(),
            ipv6: "none".to_owned(),
            cert_name,
            derp_port: derp.local_addr().port().into(),
            stun_port: stun.local_addr().port().into(),
            ..DerpNode::default()
        };
        let region = DerpRegion {
            region_id: REGION,
            region_code: "home".to_owned(),
            region_name: "Home".to_owned(),
            nodes: vec![node],
            ..DerpRegion::default()
        };
        let regions = Some([(REGION, region)].into());
        let derp_map = Arc::new(DerpMap { regions, ..DerpMap::default() });
        Ok(Self { derp_map, _services: [derp, stun] })
    }
}

#[expect(clippy::disallowed_methods, reason = "real nodes compare it with their own")]
fn now() -> SystemTime {
    SystemTime::now()
}
