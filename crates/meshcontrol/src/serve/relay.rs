//! The embedded relay, and the DERP map that tells clients of it and of others.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh_config::Config;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_model::{Clock, NodeId, Timestamp};
use mesh_netmap::MapContext;
use mesh_relay::{Certificate, Relay, generate_self_signed};
use mesh_server::derp_map;
use mesh_state::Snapshot;
use mesh_store::{Handle, Span};
use mesh_wire::{DerpMap, DerpNode, DerpRegion, DerpRegionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{files, settings};

/// The relay's certificate, where clients know it by its pin.
const CERTIFICATE_FILE: &str = "derp_certificate.pem";

/// How soon a map that could not be fetched is tried again; doubled at each failure.
const RETRY_MIN: Duration = Duration::from_secs(30);

/// A started relay and the region it serves.
pub(crate) struct Started {
    /// The relay, if it is enabled.
    pub(crate) relay: Option<Relay>,
    /// What clients are told of it.
    pub(crate) region: Option<DerpRegion>,
}

/// Starts the embedded relay with its doors: our own TLS listener while clients know it by a pin, else the
/// main listener; and STUN.
pub(crate) async fn start(
    config: &Config,
    server_url: &str,
    store: Handle,
    clock: Arc<dyn Clock>,
    data_dir: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<Started> {
    let settings = &config.derp.server;
    if !settings.enabled {
        return Ok(Started { relay: None, region: None });
    }
    let key: DerpPrivate = files::private_key(&settings.private_key_path)?;
    let public_key = key.public();
    let verify = settings.verify_clients;
    let nodes = store.clone();
    let admission =
        move |key: &NodePublic| !verify || is_admitted(&nodes.snapshot(), key, clock.now());
    let relay = Relay::new(key, Arc::new(admission), stop.clone());
    spawn_cutter(relay.clone(), store, stop.clone());

    let url: http::Uri = server_url.parse().context("the server's URL")?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let mut node = DerpNode {
        name: format!("{}a", settings.region_id),
        region_id: DerpRegionId(settings.region_id.into()),
        ipv4: address_text(settings.ipv4.map(IpAddr::V4), &host, IpAddr::is_ipv4),
        ipv6: address_text(settings.ipv6.map(IpAddr::V6), &host, IpAddr::is_ipv6),
        host_name: host.clone(),
        ..DerpNode::default()
    };
    if config.tls.cert_path.is_some() {
        let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
        node.derp_port = url.port_u16().unwrap_or(default).into();
    } else {
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are valid by the system's time"
        )]
        let now = SystemTime::now();
        let certificate = certificate(&host, data_dir, now)?;
        node.cert_name = certificate.pin().unwrap_or_default();
        let tls = certificate.server_config(&public_key, now).context("the relay's certificate")?;
        let address = settings.listen_addr;
        let listener = relay.spawn_tls_listener(address, tls).await.with_context(|| {
            format!("the relay cannot listen on {address}: set derp.server.listen_addr")
        })?;
        node.derp_port = listener.local_addr().port().into();
        spawn_until(stop.clone(), listener.stopped());
    }
    let address = settings.stun_listen_addr;
    let stun = relay.spawn_stun_listener(address).await.with_context(|| {
        format!("STUN cannot listen on {address}: set derp.server.stun_listen_addr")
    })?;
    node.stun_port = stun.local_addr().port().into();
    spawn_until(stop.clone(), stun.stopped());
    let region = DerpRegion {
        region_id: DerpRegionId(settings.region_id.into()),
        region_code: settings.region_code.clone(),
        region_name: settings.region_name.clone(),
        nodes: vec![node],
        ..DerpRegion::default()
    };
    let region = settings.automatically_add_embedded_derp_region.then_some(region);
    Ok(Started { relay: Some(relay), region })
}

/// Keeps a service alive until it has stopped.
fn spawn_until(stop: CancellationToken, stopped: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        stop.cancelled().await;
        stopped.await;
    });
}

/// What the map says of an address family: the configured address, that of the URL's host, or that there is
/// none. Unsaid, clients look for one and wait seconds for it; only a host's name can have both.
fn address_text(configured: Option<IpAddr>, host: &str, is_family: fn(&IpAddr) -> bool) -> String {
    match (configured, host.parse::<IpAddr>()) {
        (Some(address), _) => address.to_string(),
        (None, Ok(address)) if is_family(&address) => address.to_string(),
        (None, Ok(_)) => "none".to_owned(),
        (None, Err(_)) => String::new(),
    }
}

/// The certificate by whose pin clients know the relay: made at the first start, and again when the server goes
/// by another name, for clients also want their name for it in there.
fn certificate(host: &str, data_dir: &Path, now: SystemTime) -> anyhow::Result<Certificate> {
    let path = data_dir.join(CERTIFICATE_FILE);
    let shown = path.display();
    if path.exists() {
        let text = files::read_private(&path).with_context(|| format!("cannot read {shown}"))?;
        let kept = Certificate::from_pem(&text).with_context(|| {
            format!("{shown} is damaged: remove it, and clients are told of another")
        })?;
        if kept.is_for(host) {
            return Ok(kept);
        }
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {shown}"))?;
    }
    let text = generate_self_signed(host, now)?;
    files::write_private(&path, &text)?;
    Ok(Certificate::from_pem(&text)?)
}

/// Whether the relay serves a node: while it is one of ours whose key has not expired.
fn is_admitted(snapshot: &Snapshot, key: &NodePublic, now: Timestamp) -> bool {
    snapshot.tailnet.node_by_key(key).is_some_and(|node| !node.is_expired(now))
}

/// Cuts nodes off the relay as soon as they are deleted, have expired, or changed their key.
fn spawn_cutter(relay: Relay, store: Handle, stop: CancellationToken) {
    let mut epochs = store.subscribe();
    let mut seen = store.snapshot();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = epochs.changed() => if changed.is_err() { return },
            }
            let (newest, touched): (_, Vec<NodeId>) = match store.since(seen.epoch) {
                Some(Span { to, changes }) => (to, changes.nodes.iter().map(NodeId).collect()),
                None => (store.snapshot(), seen.tailnet.nodes().map(|node| node.id).collect()),
            };
            for key in gone(&seen, &newest, &touched) {
                relay.disconnect(&key);
            }
            seen = newest;
        }
    });
}

/// The keys of touched nodes that were good, and are none's or an expired one's.
fn gone(from: &Snapshot, to: &Snapshot, touched: &[NodeId]) -> Vec<NodePublic> {
    let keys = touched.iter().filter_map(|id| from.tailnet.node(*id)).map(|node| node.node_key);
    keys.filter(|key| !is_admitted(to, key, to.at)).collect()
}

/// Gathers what netmaps hold beside the tailnet, and keeps it up to date.
pub(crate) async fn spawn_contexts(
    config: &Config,
    embedded: Option<DerpRegion>,
    stop: CancellationToken,
) -> anyhow::Result<watch::Receiver<Arc<MapContext>>> {
    let regions = DerpRegions::gather(config, embedded).await?;
    let (contexts, reader) = watch::channel(Arc::new(settings::map_context(config, regions.map())));
    spawn_refresh(regions, contexts, config, stop);
    Ok(reader)
}

/// Where the DERP map comes from.
struct DerpRegions {
    client: reqwest::Client,
    urls: Vec<String>,
    /// Regions that do not change while we run: ours and those of files.
    fixed: Vec<DerpMap>,
    /// What each URL last said. One that fails keeps what it had.
    fetched: Vec<DerpMap>,
    /// Whether all of them answered when last asked.
    is_complete: bool,
}

impl DerpRegions {
    /// Reads files and URLs. A file that is wrong is an error; a URL that does not answer is tried again
    /// later, unless there would be no region at all.
    async fn gather(config: &Config, embedded: Option<DerpRegion>) -> anyhow::Result<Self> {
        let mut fixed = Vec::new();
        for path in &config.derp.paths {
            let shown = path.display();
            let text =
                tokio::fs::read(path).await.with_context(|| format!("cannot read {shown}"))?;
            fixed.push(derp_map::parse_yaml(&text).with_context(|| format!("{shown}"))?);
        }
        fixed.extend(embedded.map(|region| DerpMap {
            regions: Some([(region.region_id, region)].into()),
            ..DerpMap::default()
        }));
        let urls: Vec<String> =
            config.derp.urls.iter().map(mesh_config::HttpUrl::to_text).collect();
        let fetched = vec![DerpMap::default(); urls.len()];
        let mut this =
            Self { client: reqwest::Client::new(), urls, fixed, fetched, is_complete: true };
        this.fetch().await;
        if this.map().regions.iter().flatten().next().is_none() {
            anyhow::bail!(
                "there is no DERP region: enable derp.server, or name a map in derp.urls or derp.paths"
            );
        }
        Ok(this)
    }

    /// All regions; ours and those of files win over fetched ones.
    fn map(&self) -> Arc<DerpMap> {
        derp_map::merge(self.fetched.iter().chain(&self.fixed).cloned())
    }

    /// Asks every URL.
    async fn fetch(&mut self) {
        self.is_complete = true;
        for (url, fetched) in self.urls.iter().zip(&mut self.fetched) {
            match derp_map::fetch(&self.client, url).await {
                Ok(map) => *fetched = map,
                Err(error) => {
                    self.is_complete = false;
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        url,
                        error = format!("{error:#}"),
                        "a DERP map could not be fetched"
                    );
                }
            }
        }
    }
}

/// Fetches the maps again and again, and tells clients only of a change.
fn spawn_refresh(
    mut regions: DerpRegions,
    contexts: watch::Sender<Arc<MapContext>>,
    config: &Config,
    stop: CancellationToken,
) {
    let period = config.derp.update_frequency;
    let refreshes = config.derp.auto_update_enabled && !regions.urls.is_empty();
    tokio::spawn(async move {
        let mut retry = RETRY_MIN;
        loop {
            let wait = if regions.is_complete { period } else { retry.min(period) };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait), if refreshes => {}
            }
            regions.fetch().await;
            retry = if regions.is_complete { RETRY_MIN } else { 2 * retry };
            let derp_map = regions.map();
            contexts.send_if_modified(|context| {
                let is_new = context.derp_map != derp_map;
                if is_new {
                    *context = Arc::new(MapContext { derp_map, ..MapContext::clone(context) });
                }
                is_new
            });
        }
    });
}
