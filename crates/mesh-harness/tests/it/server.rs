//! A control server of the simplest kind: it tells everybody everything.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::{Request, Response};
use mesh_keys::NodePublic;
use mesh_testkit::control_server::{self, Body, ControlServer, json, stream, whole};
use mesh_wire::{
    MapRequest, MapResponse, Node, NodeId, PeerChange, RegisterRequest, RegisterResponse, UserId,
    UserProfile,
};
use tokio::sync::mpsc;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// Tells nobody of the first node.
    Forgets,
    /// Lists the first node twice in full maps.
    Doubles,
    /// Does not say that nodes go.
    HidesOffline,
    /// Tells another name in deltas than in full maps.
    Contradicts,
    /// Turns every first registration away, for a second.
    Overloaded,
}

/// Most messages that wait for one stream.
const QUEUE: usize = 10_000;

#[derive(Debug)]
struct Known {
    key: NodePublic,
    node: Node,
    stream: Option<mpsc::Sender<Bytes>>,
    streams: u64,
    compress: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    fault: Fault,
    nodes: Mutex<BTreeMap<NodeId, Known>>,
    turned_away: Mutex<Vec<NodePublic>>,
}

impl Server {
    pub(crate) async fn start(fault: Fault) -> ControlServer {
        let (nodes, turned_away) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Self { fault, nodes, turned_away });
        let answer = move |request| ready(Ok(Arc::clone(&server).answer(&request)));
        ControlServer::spawn(answer).await.unwrap()
    }

    fn answer(self: Arc<Self>, request: &Request<Bytes>) -> Response<Body> {
        match request.uri().path() {
            "/machine/register" => self.register(request.body()),
            "/machine/map" => self.map(request.body()),
            path => panic!("unexpected request for {path}"),
        }
    }

    fn register(&self, body: &[u8]) -> Response<Body> {
        let request: RegisterRequest = serde_json::from_slice(body).unwrap();
        let mut turned_away = self.turned_away.lock().unwrap();
        if self.fault == Fault::Overloaded && !turned_away.contains(&request.node_key) {
            turned_away.push(request.node_key);
            let busy = Response::builder().status(429).header("retry-after", "1");
            return busy.body(Body::default()).unwrap();
        }
        if request.auth.unwrap().auth_key.0 != "good-key" {
            let refusal =
                RegisterResponse { error: "bad key".to_owned(), ..RegisterResponse::default() };
            return json(&refusal);
        }
        let hostinfo = request.hostinfo.unwrap();
        let mut nodes = self.nodes.lock().unwrap();
        let id = NodeId(1000 + 7 * nodes.len() as u64);
        let node = Node {
            id,
            name: format!("{}.test.", hostinfo.hostname),
            key: request.node_key,
            user: UserId(1),
            ..Node::default()
        };
        nodes.insert(
            id,
            Known { key: request.node_key, node, stream: None, streams: 0, compress: false },
        );
        json(&RegisterResponse { machine_authorized: true, ..RegisterResponse::default() })
    }

    fn map(self: Arc<Self>, body: &[u8]) -> Response<Body> {
        let request: MapRequest = serde_json::from_slice(body).unwrap();
        let compress = request.compress == "zstd";
        let mut nodes = self.nodes.lock().unwrap();
        let known = nodes.values_mut().find(|known| known.key == request.node_key).unwrap();
        let id = known.node.id;
        if request.omit_peers {
            known.node.endpoints.clone_from(&request.endpoints);
            let node = Some(Box::new(known.node.clone()));
            let own = framed(&MapResponse { node, ..MapResponse::default() }, known.compress);
            let _ = known.stream.as_ref().map(|stream| stream.try_send(own));
            let endpoints = Some(request.endpoints);
            self.patch(&nodes, PeerChange { node_id: id, endpoints, ..PeerChange::default() });
            return Response::default();
        }
        if !request.stream {
            return whole(framed(&self.full(&nodes, id), compress));
        }
        known.node.online = Some(true);
        known.streams += 1;
        known.compress = compress;
        let number = known.streams;
        let (sender, mut messages) = mpsc::channel(QUEUE);
        known.stream = Some(sender.clone());
        sender.try_send(framed(&self.full(&nodes, id), compress)).unwrap();
        let mut node = nodes[&id].node.clone();
        if self.fault == Fault::Contradicts {
            "another.test.".clone_into(&mut node.name);
        }
        self.tell(&nodes, id, &MapResponse { peers_changed: vec![node], ..MapResponse::default() });
        drop(nodes);
        let leaves = Leaves { server: self, id, number };
        stream(poll_fn(move |context| {
            let _leaves = &leaves;
            messages.poll_recv(context)
        }))
    }

    fn full(&self, nodes: &BTreeMap<NodeId, Known>, viewer: NodeId) -> MapResponse {
        let others = nodes.values().filter(|known| known.node.id != viewer);
        let mut peers: Vec<Node> = others.map(|known| known.node.clone()).collect();
        if self.fault == Fault::Forgets {
            peers.retain(|peer| peer.id != NodeId(1000));
        }
        if self.fault == Fault::Doubles && peers.first().is_some_and(|peer| peer.id.0 == 1000) {
            peers.insert(0, peers[0].clone());
        }
        let node = Some(Box::new(nodes[&viewer].node.clone()));
        let profile = UserProfile { id: UserId(1), ..UserProfile::default() };
        MapResponse { node, peers, user_profiles: vec![profile], ..MapResponse::default() }
    }

    fn patch(&self, nodes: &BTreeMap<NodeId, Known>, patch: PeerChange) {
        let id = patch.node_id;
        self.tell(
            nodes,
            id,
            &MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() },
        );
    }

    /// Tells everybody what there is to say about a node.
    fn tell(&self, nodes: &BTreeMap<NodeId, Known>, about: NodeId, message: &MapResponse) {
        if self.fault == Fault::Forgets && about == NodeId(1000) {
            return;
        }
        let [plain, compressed] = [false, true].map(|compress| framed(message, compress));
        for known in nodes.values().filter(|known| known.node.id != about) {
            let message = if known.compress { &compressed } else { &plain };
            let _ = known.stream.as_ref().map(|stream| stream.try_send(message.clone()));
        }
    }

    fn gone(&self, id: NodeId, number: u64) {
        let mut nodes = self.nodes.lock().unwrap();
        let known = nodes.get_mut(&id).unwrap();
        if known.streams != number {
            return;
        }
        known.node.online = Some(false);
        known.stream = None;
        if self.fault != Fault::HidesOffline {
            let online = Some(false);
            self.patch(&nodes, PeerChange { node_id: id, online, ..PeerChange::default() });
        }
    }
}

/// A message as it goes over the wire; compressed it is two frames.
fn framed(message: &MapResponse, compress: bool) -> Bytes {
    let json = serde_json::to_vec(message).unwrap();
    let (first, second) = json.split_at(json.len() / 3);
    let payload = if compress {
        [first, second].map(|part| zstd::encode_all(part, 1).unwrap()).concat()
    } else {
        json
    };
    control_server::framed(&payload)
}

/// Says that a stream has ended.
#[derive(Debug)]
struct Leaves {
    server: Arc<Server>,
    id: NodeId,
    number: u64,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.server.gone(self.id, self.number);
    }
}
