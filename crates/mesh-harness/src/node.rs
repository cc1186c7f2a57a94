//! One fake node: dials, registers, keeps a map stream open and tells about itself, as a stock client does.
//!
//! Source: tailscale `control/controlclient/auto.go`, `direct.go`; `util/backoff`.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use mesh_client::{ControlClient, MapStream, Netmap, RequestError, backoff};
use mesh_keys::{DiscoPublic, MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, DerpRegionId, EndpointType, Hostinfo, MapRequest, NetInfo, RegisterAuth,
    RegisterRequest, SecretText, Service,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use crate::fleet::Shared;
use crate::roster::Entry;
use crate::view::View;

/// What the nodes understand.
pub(crate) const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// A stream without a message for so long is given up, as stock clients do.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// Receive buffer of a node that reads nothing: the less fits into it, the more the server has to bear.
const STALLED_BUFFER_BYTES: u32 = 4096;

/// What a node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Whether to be connected.
    pub(crate) online: bool,
    /// A change cuts the connection, which the node then opens anew.
    pub(crate) cut: u64,
    /// Which endpoint to have: each number is another.
    pub(crate) endpoint: u16,
    /// Whether to open a stream and read nothing of it, as a machine that is put to sleep.
    pub(crate) stalled: bool,
}

impl Order {
    /// Whether what the node sees is to be judged.
    pub(crate) fn is_judged(&self) -> bool {
        self.online && !self.stalled
    }
}

/// A fake node: who it is, what it is to do, what it knows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) entry: Entry,
    index: u32,
    machine: MachinePrivate,
    key: NodePublic,
    disco: DiscoPublic,
    pub(crate) order: watch::Sender<Order>,
    pub(crate) view: Mutex<View>,
}

impl Node {
    /// Makes the node at `index` of the roster; the same `seed` makes the same keys.
    pub(crate) fn new(entry: Entry, index: u32, seed: u64) -> Self {
        let bytes = |what: u8| {
            let mut hasher = blake3::Hasher::new_derive_key("meshharness keys");
            hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(&[what]);
            *hasher.finalize().as_bytes()
        };
        let order = Order { online: false, cut: 0, endpoint: 0, stalled: false };
        Self {
            entry,
            index,
            machine: MachinePrivate::from_bytes(bytes(0)),
            key: NodePrivate::from_bytes(bytes(1)).public(),
            disco: DiscoPublic::from_bytes(bytes(2)),
            order: watch::Sender::new(order),
            view: Mutex::default(),
        }
    }

    /// Does as ordered, for ever.
    pub(crate) async fn run(&self, shared: &Shared) {
        let mut orders = self.order.subscribe();
        let mut life = Life::default();
        loop {
            let Ok(order) = orders.wait_for(|order| order.online).await.map(|order| *order) else {
                return;
            };
            let called = async {
                let changes = |now: &Order| Order { endpoint: order.endpoint, ..*now } != order;
                // The sender is the node's own.
                let _ = orders.wait_for(changes).await;
            };
            let session = self.session(shared, &mut life, order.stalled);
            tokio::select! {
                biased;
                () = called => life.failures = 0,
                pause = session => {
                    shared.note_cut();
                    sleep(pause).await;
                }
            }
        }
    }

    /// Dials and stays. Returns how long to wait before the next try.
    async fn session(&self, shared: &Shared, life: &mut Life, stalled: bool) -> Duration {
        let error = self.stay(shared, life, stalled).await.err();
        let asked = error.as_ref().and_then(retry_after);
        if let Some(error) = error {
            shared.note_error(&error);
        }
        life.failures += 1;
        asked.unwrap_or_else(|| backoff(life.failures, jitter(self.index, life.failures)))
    }

    async fn stay(&self, shared: &Shared, life: &mut Life, stalled: bool) -> Result<()> {
        // Who joins waits for its turn; who was in is not held up.
        let turn = if life.registered { None } else { Some(shared.turn().await) };
        let dialled_at = *life.dialled_at.get_or_insert_with(Instant::now);
        let dialer = shared.dialer(self.index);
        let dialer =
            if stalled { dialer.with_receive_buffer(STALLED_BUFFER_BYTES) } else { dialer };
        let client = ControlClient::connect_to(&dialer, &self.machine, VERSION, shared.server_key);
        let client = client.await.context("dial")?;
        if !life.registered {
            self.register(&client).await?;
            life.registered = true;
            self.view().registered_in = Some(dialled_at.elapsed());
        }
        let stream = client.map_stream(&self.map_request(shared)).await;
        if let Err(RequestError::Status { status, .. }) = &stream
            && (status.as_u16() == 401 || status.as_u16() == 404)
        {
            life.registered = false;
        }
        let stream = stream.context("map stream")?;
        self.view().begin_session();
        if stalled {
            client.stop_reading();
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            end = self.follow(shared, stream, turn, &mut life.failures) => end,
            error = self.tell(shared, &client) => error,
        }
    }

    async fn register(&self, client: &ControlClient) -> Result<()> {
        let request = RegisterRequest {
            version: VERSION,
            node_key: self.key,
            auth: Some(RegisterAuth { auth_key: SecretText(self.entry.auth_key.clone()) }),
            hostinfo: Some(Box::new(self.hostinfo())),
            ..RegisterRequest::default()
        };
        let answer = client.register(&request).await.context("registration")?;
        if !answer.error.is_empty() {
            bail!("registration refused: {}", answer.error);
        }
        if !answer.machine_authorized {
            bail!("registration needs a person's approval: use keys that approve");
        }
        Ok(())
    }

    /// Reads the stream until it ends.
    async fn follow(
        &self,
        shared: &Shared,
        mut stream: MapStream,
        mut turn: Option<OwnedSemaphorePermit>,
        failures: &mut u32,
    ) -> Result<()> {
        loop {
            let message = timeout(SILENCE_MAX, stream.next_message()).await;
            let message = message.context("map stream: silence")?.context("map stream")?;
            let Some(message) = message else { return Ok(()) };
            let now = Instant::now();
            shared.reader.read(&message, |news, json_bytes| {
                let mut view = self.view();
                view.counts.messages += 1;
                view.counts.bytes += u64::try_from(message.wire_bytes()).unwrap_or(u64::MAX);
                view.counts.json_bytes += u64::try_from(json_bytes).unwrap_or(u64::MAX);
                view.take(news, shared.reader.watched(), now);
                if let Some(sample) = &mut view.sample {
                    sample.take(&message);
                }
            })?;
            if turn.take().is_some() || *failures > 0 {
                *failures = 0;
                shared.learn_home(|| home_region(&message));
            }
        }
    }

    /// Tells the server about the node once it has had a map, and whenever its endpoint is to be another.
    async fn tell(&self, shared: &Shared, client: &ControlClient) -> Result<()> {
        let home = shared.home().await;
        let mut orders = self.order.subscribe();
        loop {
            let endpoint = orders.borrow_and_update().endpoint;
            let update = self.lite_update(endpoint, home);
            client.lite_update(&update).await.context("lite update")?;
            orders.wait_for(|order| order.endpoint != endpoint).await?;
        }
    }

    /// Asks for a whole map beside the stream, which changes nothing.
    async fn fresh_map(&self, shared: &Shared) -> Result<Netmap> {
        let dialer = shared.dialer(self.index);
        let client = ControlClient::connect_to(&dialer, &self.machine, VERSION, shared.server_key);
        let client = client.await.context("dial")?;
        let request = MapRequest { stream: false, read_only: true, ..self.map_request(shared) };
        let mut stream = client.map_stream(&request).await?;
        let message = stream.next().await?.context("no map")?;
        let mut netmap = Netmap::default();
        netmap.apply(message, Timestamp::UNIX_EPOCH);
        Ok(netmap)
    }

    fn map_request(&self, shared: &Shared) -> MapRequest {
        MapRequest {
            version: VERSION,
            compress: shared.compress.to_owned(),
            keep_alive: true,
            node_key: self.key,
            disco_key: self.disco,
            stream: true,
            hostinfo: Some(Box::new(self.hostinfo())),
            ..MapRequest::default()
        }
    }

    fn lite_update(&self, endpoint: u16, home: DerpRegionId) -> MapRequest {
        let info = NetInfo {
            working_udp: Some(true),
            preferred_derp: home,
            derp_latency: [(format!("{home}-v4"), 0.012)].into(),
            ..NetInfo::default()
        };
        let peer_api =
            |proto: &str| Service { proto: proto.to_owned(), port: 40_000, ..Service::default() };
        let services = vec![peer_api(Service::PEER_API_4), peer_api(Service::PEER_API_6)];
        let hostinfo = Hostinfo { net_info: Some(info), services, ..self.hostinfo() };
        MapRequest {
            version: VERSION,
            keep_alive: true,
            node_key: self.key,
            disco_key: self.disco,
            hostinfo: Some(Box::new(hostinfo)),
            endpoints: vec![self.endpoint(endpoint)],
            endpoint_types: vec![EndpointType::LOCAL],
            omit_peers: true,
            ..MapRequest::default()
        }
    }

    /// The endpoint of a number.
    pub(crate) fn endpoint(&self, number: u16) -> SocketAddr {
        let [_, second, third, fourth] = self.index.to_be_bytes();
        ([10, second, third, fourth], 20_000 + number % 40_000).into()
    }

    fn hostinfo(&self) -> Hostinfo {
        Hostinfo {
            ipn_version: "1.90.0-meshharness".to_owned(),
            backend_log_id: format!("{:064x}", self.index),
            os: "linux".to_owned(),
            os_version: "6.12.0".to_owned(),
            distro: "debian".to_owned(),
            machine: "x86_64".to_owned(),
            go_arch: "amd64".to_owned(),
            go_version: "go1.25.0".to_owned(),
            hostname: self.entry.hostname.clone(),
            request_tags: self.entry.tags.clone(),
            ..Hostinfo::default()
        }
    }

    /// Connects.
    pub(crate) fn come(&self) {
        self.expect_new_stream();
        self.order.send_modify(|order| order.online = true);
    }

    /// Cuts the connection; the node comes back at once.
    pub(crate) fn cut(&self) {
        self.expect_new_stream();
        self.order.send_modify(|order| order.cut += 1);
    }

    /// Has it judged by the next stream that it opens.
    pub(crate) fn expect_new_stream(&self) {
        let mut view = self.view();
        view.due = view.sessions + 1;
    }

    /// Looks at it closely from now on.
    pub(crate) fn sample(&self) {
        self.view().sample = Some(Box::default());
    }

    /// What was wrong with messages to it, if it is looked at closely.
    pub(crate) fn take_complaints(&self) -> Vec<String> {
        let mut view = self.view();
        let complaints = view.sample.as_mut().map(|sample| sample.take_complaints());
        let complaints = complaints.unwrap_or_default().into_iter();
        complaints.map(|complaint| format!("{}: {complaint}", self.entry.hostname)).collect()
    }

    /// Compares what it was told, if it is looked at closely, with a map fetched afresh.
    pub(crate) async fn compare(&self, shared: &Shared) -> Result<Vec<String>> {
        let fresh = self.fresh_map(shared).await?;
        let view = self.view();
        let differences = view.sample.as_ref().map(|sample| sample.compare(fresh));
        let differences = differences.unwrap_or_default().into_iter();
        Ok(differences.map(|what| format!("{}: {what}", self.entry.hostname)).collect())
    }

    /// What it knows; held for a moment only.
    pub(crate) fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.view.lock().expect("invariant: nobody panics with a view in hand")
    }
}

/// What lasts from one connection of a node to the next.
#[derive(Debug, Default)]
struct Life {
    registered: bool,
    dialled_at: Option<Instant>,
    /// Failures since it last had a map.
    failures: u32,
}

/// Golden-ratio steps spread any run of indexes evenly.
fn jitter(index: u32, failures: u32) -> u32 {
    index.wrapping_add(failures).wrapping_mul(0x9E37_79B9)
}

fn retry_after(error: &anyhow::Error) -> Option<Duration> {
    error.chain().find_map(|cause| cause.downcast_ref::<RequestError>()?.retry_after())
}

/// The first region of the relays that a message tells of.
fn home_region(message: &mesh_client::Message) -> Option<DerpRegionId> {
    #[derive(Deserialize)]
    struct Relays {
        #[serde(rename = "DERPMap")]
        derp_map: mesh_wire::DerpMap,
    }
    let json = message.json().ok()?;
    let relays: Relays = serde_json::from_slice(&json).ok()?;
    relays.derp_map.regions?.into_keys().next()
}
