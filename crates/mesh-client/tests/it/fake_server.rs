//! A control server that answers as a test tells it to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_client::{ControlClient, ControlUrl, Dialer};
use mesh_keys::{ChallengePublic, MachinePrivate, MachinePublic};
use mesh_noise::{Accepted, Responder, early_payload, error_frame};
use mesh_noise_io::NoiseStream;
use mesh_wire::CapabilityVersion;
use rustls::RootCertStore;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A body of given pieces that then ends or, if `open`, does not.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pieces: VecDeque<Bytes>,
    open: bool,
}

impl Script {
    /// These bytes and then the end.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { pieces: [bytes.into()].into(), open: false }
    }

    /// These bytes `size` at a time; then the end, unless `open`.
    pub(crate) fn pieces(bytes: &[u8], size: usize, open: bool) -> Self {
        Self { pieces: bytes.chunks(size).map(Bytes::copy_from_slice).collect(), open }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A request inside the channel.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) peer: MachinePublic,
}

type Answer = Response<Script>;
type Handler = dyn Fn(Asked) -> Answer + Send + Sync;

pub(crate) fn ok(body: impl Into<Bytes>) -> Answer {
    Response::new(Script::whole(body))
}

pub(crate) fn refusal(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = ok(text);
    *answer.status_mut() = status;
    answer
}

/// How the server behaves outside the channel and at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As a server should, with an early payload.
    Good,
    /// As a server may: without an early payload.
    NoEarlyPayload,
    /// Hands out another key than it holds.
    WrongKey,
    /// Hands out the zero key.
    NoKey,
    /// Answers the handshake with an error frame.
    ErrorFrame,
    /// Ends the connection inside its answer to the handshake.
    HalfAnswer,
    /// Answers `/ts2021` with 200.
    NoSwitch,
    /// Switches to something else.
    OtherProtocol,
    /// Sends `/key` without end.
    EndlessKey,
    /// Sends no JSON for `/key`.
    MalformedKey,
}

pub(crate) struct FakeServer {
    pub(crate) url: ControlUrl,
    pub(crate) roots: RootCertStore,
    pub(crate) key: MachinePublic,
    /// Channels that are open.
    pub(crate) channels: Arc<AtomicUsize>,
}

struct Inside {
    key: MachinePrivate,
    manners: Manners,
    handler: Box<Handler>,
    channels: Arc<AtomicUsize>,
}

impl FakeServer {
    /// Serves plain HTTP.
    pub(crate) async fn start(
        manners: Manners,
        handler: impl Fn(Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(manners, None, Box::new(handler)).await
    }

    /// Serves HTTPS with a certificate of its own for `localhost`.
    pub(crate) async fn start_tls(
        handler: impl Fn(Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let mut server = Self::start_with(Manners::Good, Some(tls), Box::new(handler)).await;
        server.roots.add(certificate).unwrap();
        server
    }

    async fn start_with(manners: Manners, tls: Option<TlsAcceptor>, handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let key = MachinePrivate::from_bytes([2; 32]);
        let channels = Arc::new(AtomicUsize::new(0));
        let server = Self {
            url: format!("{scheme}://localhost:{port}").parse().unwrap(),
            roots: RootCertStore::empty(),
            key: key.public(),
            channels: Arc::clone(&channels),
        };
        let inside = Arc::new(Inside { key, manners, handler, channels });
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let inside = Arc::clone(&inside);
                match tls.clone() {
                    None => drop(tokio::spawn(serve(tcp, inside))),
                    Some(tls) => drop(tokio::spawn(async move {
                        if let Ok(io) = tls.accept(tcp).await {
                            serve(io, inside).await;
                        }
                    })),
                }
            }
        });
        server
    }

    pub(crate) fn dialer(&self) -> Dialer {
        Dialer::new(self.url.clone(), self.roots.clone())
    }

    pub(crate) async fn client(&self) -> ControlClient {
        ControlClient::connect(&self.dialer(), &machine_key(), VERSION).await.unwrap()
    }

    /// Waits until as many channels are open.
    pub(crate) async fn wait_for_channels(&self, count: usize) {
        while self.channels.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

pub(crate) fn machine_key() -> MachinePrivate {
    MachinePrivate::from_bytes([1; 32])
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: IO, inside: Arc<Inside>) {
    let service = service_fn(|request| {
        let inside = Arc::clone(&inside);
        async move { Ok::<_, Infallible>(outside(request, inside)) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let _ = connection.with_upgrades().await;
}

fn outside(request: Request<Incoming>, inside: Arc<Inside>) -> Answer {
    match request.uri().path() {
        "/key" => key_answer(&request, &inside),
        "/ts2021" if inside.manners == Manners::NoSwitch => ok("hello"),
        "/ts2021" => upgrade(request, inside),
        "/outside" => ok(format!("{} {}", request.method(), request.uri())),
        path => panic!("unexpected request for {path}"),
    }
}

fn key_answer(request: &Request<Incoming>, inside: &Inside) -> Answer {
    assert_eq!(request.uri().query(), Some(&*format!("v={VERSION}")));
    if inside.manners == Manners::EndlessKey {
        return Response::new(Script::pieces(&vec![b' '; 70_000], 999, true));
    }
    if inside.manners == Manners::MalformedKey {
        return ok("[]");
    }
    let key = if inside.manners == Manners::WrongKey {
        MachinePrivate::from_bytes([9; 32]).public()
    } else if inside.manners == Manners::NoKey {
        MachinePublic::default()
    } else {
        inside.key.public()
    };
    let zero = MachinePublic::default();
    ok(format!(r#"{{"legacyPublicKey":"{zero}","publicKey":"{key}"}}"#))
}

fn upgrade(mut request: Request<Incoming>, inside: Arc<Inside>) -> Answer {
    assert_eq!(request.method(), Method::POST);
    assert!(request.headers()["host"].to_str().unwrap().starts_with("localhost:"));
    assert_eq!(request.headers()["upgrade"], "tailscale-control-protocol");
    let initiation = BASE64.decode(request.headers()["x-tailscale-handshake"].as_bytes()).unwrap();
    let Ok(accepted) = Responder::new(&inside.key).respond(&initiation) else {
        return refusal(StatusCode::BAD_REQUEST, "bad handshake\n");
    };
    assert_eq!(u32::from(accepted.version), VERSION.0);
    let upgrade = hyper::upgrade::on(&mut request);
    let other = inside.manners == Manners::OtherProtocol;
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        serve_channel(io, accepted, inside).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", if other { "websocket" } else { "tailscale-control-protocol" })
        .header("connection", "upgrade")
        .body(Script::default())
        .unwrap()
}

async fn serve_channel<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut io: IO,
    accepted: Accepted,
    inside: Arc<Inside>,
) {
    let Accepted { peer, response, transport, .. } = accepted;
    if inside.manners == Manners::ErrorFrame {
        return io.write_all(&error_frame("go away")).await.unwrap();
    }
    if inside.manners == Manners::HalfAnswer {
        return io.write_all(&response[..30]).await.unwrap();
    }
    let mut stream = NoiseStream::answering(io, &response, transport);
    if inside.manners != Manners::NoEarlyPayload {
        let challenge = ChallengePublic::from_bytes([5; 32]);
        stream.write_all(&early_payload(&challenge)).await.unwrap();
    }
    let channels = Arc::clone(&inside.channels);
    channels.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request| answer(request, peer, Arc::clone(&inside)));
    let io = TokioIo::new(stream);
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    channels.fetch_sub(1, Ordering::SeqCst);
}

async fn answer(
    request: Request<Incoming>,
    peer: MachinePublic,
    inside: Arc<Inside>,
) -> Result<Answer, Infallible> {
    assert_eq!(request.uri().scheme_str(), Some("https"));
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path_and_query().unwrap().to_string();
    Ok((inside.handler)(Asked { method: head.method, path, body, peer }))
}
