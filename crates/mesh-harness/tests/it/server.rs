//! A control server of the simplest kind: it tells everybody everything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_keys::{MachinePrivate, NodePublic};
use mesh_noise::{Accepted, Responder};
use mesh_noise_io::NoiseStream;
use mesh_wire::{
    MapRequest, MapResponse, Node, NodeId, PeerChange, RegisterRequest, RegisterResponse, UserId,
    UserProfile,
};
use tokio::net::TcpListener;
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
    pub(crate) url: String,
    fault: Fault,
    key: MachinePrivate,
    nodes: Mutex<BTreeMap<NodeId, Known>>,
    turned_away: Mutex<Vec<NodePublic>>,
}

impl Server {
    pub(crate) async fn start(fault: Fault) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            fault,
            key: MachinePrivate::from_bytes([3; 32]),
            nodes: Mutex::default(),
            turned_away: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&serving).outside(TokioIo::new(tcp)));
            }
        });
        server
    }

    async fn outside(self: Arc<Self>, io: TokioIo<tokio::net::TcpStream>) {
        let service = service_fn(|mut request: Request<Incoming>| {
            let server = Arc::clone(&self);
            async move {
                if request.uri().path() == "/key" {
                    let body = format!(r#"{{"publicKey":"{}"}}"#, server.key.public());
                    return Ok::<_, Infallible>(whole(body));
                }
                let header = request.headers()["x-tailscale-handshake"].as_bytes();
                let initiation = BASE64.decode(header).unwrap();
                let accepted = Responder::new(&server.key).respond(&initiation).unwrap();
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let io = TokioIo::new(upgrade.await.unwrap());
                    let Accepted { response, transport, .. } = accepted;
                    server.inside(NoiseStream::answering(io, &response, transport)).await;
                });
                let switching = Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("upgrade", "tailscale-control-protocol")
                    .header("connection", "upgrade");
                Ok(switching.body(Answer::default()).unwrap())
            }
        });
        let _ = http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    }

    async fn inside<IO>(self: Arc<Self>, io: NoiseStream<IO>)
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let server = Arc::clone(&self);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(match &*path {
                    "/machine/register" => server.register(&body),
                    "/machine/map" => server.map(&body),
                    path => panic!("unexpected request for {path}"),
                })
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new());
        let _ = connection.serve_connection(TokioIo::new(io), service).await;
    }

    fn register(&self, body: &[u8]) -> Response<Answer> {
        let request: RegisterRequest = serde_json::from_slice(body).unwrap();
        let mut turned_away = self.turned_away.lock().unwrap();
        if self.fault == Fault::Overloaded && !turned_away.contains(&request.node_key) {
            turned_away.push(request.node_key);
            let busy = Response::builder().status(429).header("retry-after", "1");
            return busy.body(Answer::default()).unwrap();
        }
        if request.auth.unwrap().auth_key.0 != "good-key" {
            let refusal =
                RegisterResponse { error: "bad key".to_owned(), ..RegisterResponse::default() };
            return whole(serde_json::to_vec(&refusal).unwrap());
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
        let answer = RegisterResponse { machine_authorized: true, ..RegisterResponse::default() };
        whole(serde_json::to_vec(&answer).unwrap())
    }

    fn map(self: Arc<Self>, body: &[u8]) -> Response<Answer> {
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
            return Response::new(Answer::default());
        }
        if !request.stream {
            return whole(framed(&self.full(&nodes, id), compress));
        }
        known.node.online = Some(true);
        known.streams += 1;
        known.compress = compress;
        let number = known.streams;
        let (sender, messages) = mpsc::channel(QUEUE);
        known.stream = Some(sender.clone());
        sender.try_send(framed(&self.full(&nodes, id), compress)).unwrap();
        let mut node = nodes[&id].node.clone();
        if self.fault == Fault::Contradicts {
            "another.test.".clone_into(&mut node.name);
        }
        self.tell(&nodes, id, &MapResponse { peers_changed: vec![node], ..MapResponse::default() });
        drop(nodes);
        let leaves = Leaves { server: self, id, number };
        Response::new(Answer { pieces: Some(messages), whole: None, leaves: Some(leaves) })
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
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..], &payload].concat().into()
}

fn whole(body: impl Into<Bytes>) -> Response<Answer> {
    Response::new(Answer { whole: Some(body.into()), ..Answer::default() })
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

/// A body: some bytes, or the messages of a stream.
#[derive(Debug, Default)]
struct Answer {
    whole: Option<Bytes>,
    pieces: Option<mpsc::Receiver<Bytes>>,
    #[expect(dead_code, reason = "it acts when it is dropped")]
    leaves: Option<Leaves>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        match &mut self.pieces {
            Some(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|data| Ok(Frame::data(data))))
            }
            None => Poll::Ready(None),
        }
    }
}
