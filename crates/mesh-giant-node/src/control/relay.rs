//! The one relay of the tailnet, with STUN, on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Certificate, Relay, ServiceHandle, generate_self_signed};
use mesh_wire::{DerpMap, DerpNode, DerpRegion, DerpRegionId};
use tokio_util::sync::CancellationToken;

const REGION: DerpRegionId = DerpRegionId(1);

/// A region of one relay.
pub(super) struct Region {
    pub(super) derp_map: DerpMap,
    /// Whose end would be the relay's.
    _services: [ServiceHandle; 2],
}

impl Region {
    /// Starts the relay on ports that are free.
    pub(super) async fn spawn(now: Timestamp) -> Result<Self> {
        let (host, cancel) = (IpAddr::from(Ipv4Addr::LOCALHOST), CancellationToken::new());
        let relay = Relay::new(DerpPrivate::generate()?, Arc::new(|_: &NodePublic| true), cancel);
        let certificate = generate_self_signed(&host.to_string(), now.into())?;
        let certificate = Certificate::from_pem(&certificate)?;
        let cert_name = certificate.pin().context("the certificate has no pin")?;
        let tls = certificate.server_config(&relay.public_key(), now.into())?;
        let derp = relay.spawn_tls_listener(SocketAddr::new(host, 0), tls).await?;
        let stun = relay.spawn_stun_listener(SocketAddr::new(host, 0)).await?;
        let node = DerpNode {
            name: "1a".to_owned(),
            region_id: REGION,
            host_name: host.to_string(),
            ipv4: host.to_string(),
            cert_name,
            derp_port: derp.local_addr().port().into(),
            stun_port: stun.local_addr().port().into(),
            ..DerpNode::default()
        };
        let region = DerpRegion { region_id: REGION, nodes: vec![node], ..DerpRegion::default() };
        let regions = Some([(REGION, region)].into());
        let derp_map = DerpMap { regions, ..DerpMap::default() };
        Ok(Self { derp_map, _services: [derp, stun] })
    }
}
