//! Listening: TCP with or without TLS, and the unix socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::Source;
use crate::limits::{Slot, Slots, retry_soon, silence};
use crate::stall::{Impatient, bound_socket};

/// How long to wait after the system refused us a connection, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Its address; that of the client behind a trusted proxy; none for the unix socket.
    pub address: Option<IpAddr>,
    /// Whether it came through the unix socket, whose permissions have let it in.
    pub is_local: bool,
    pub(crate) slot: Option<Arc<Slot>>,
}

/// How connections are taken.
#[derive(Debug, Clone)]
pub struct Listening {
    /// What is served.
    pub router: Router,
    /// Connections that nobody has claimed yet.
    pub slots: Slots,
    /// How long a client may take for the head of a request. The Rust client opens a connection and lets it
    /// wait while it fetches our key on another.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub stall_timeout: Duration,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Ends everything gracefully.
    pub stop: CancellationToken,
    /// All connections.
    pub connections: TaskTracker,
}

impl Listening {
    /// Takes TCP connections until stopped.
    pub async fn run_tcp(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        if let Err(error) = bound_socket(&listener, self.stall_timeout) {
            tracing::warn!(%error, "what clients leave unread cannot be bounded");
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Small frames must not wait for each other.
                    let _ = stream.set_nodelay(true);
                    self.spawn_tcp(stream, address, tls.clone());
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Takes connections of the unix socket until stopped.
    pub async fn run_unix(self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let peer = Peer { is_local: true, ..Peer::default() };
                    let this = self.clone();
                    self.connections.spawn(async move { this.serve(stream, peer).await });
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    fn spawn_tcp(
        &self,
        stream: tokio::net::TcpStream,
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
    ) {
        let address = address.ip().to_canonical();
        let counted = (!address.is_loopback() && !self.is_trusted(address)).then_some(address);
        let Some(slot) = self.slots.take(counted) else {
            tracing::debug!("a connection was turned away: too many are unclaimed");
            return;
        };
        let peer = Peer { address: Some(address), is_local: false, slot: Some(Arc::new(slot)) };
        let this = self.clone();
        let stream = Impatient::new(stream, self.stall_timeout);
        self.connections.spawn(async move {
            let Some(tls) = tls else { return this.serve(stream, peer).await };
            if let Ok(Ok(stream)) = tokio::time::timeout(this.tls_timeout, tls.accept(stream)).await
            {
                this.serve(stream, peer).await;
            }
        });
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|prefix| prefix.contains(&address))
    }

    async fn serve<IO>(self, stream: IO, peer: Peer)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = self.stop.clone();
        let header_timeout = self.header_timeout;
        let (requested, first_request) = watch::channel(());
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            requested.send_replace(());
            let peer = self.peer_of(&peer, request.headers());
            let router = self.router.clone();
            async move {
                match peer {
                    Some(peer) => serve_request(router, peer, request).await,
                    None => Ok(too_many()),
                }
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            // hyper's own timer starts only when it knows that HTTP/1 is spoken.
            () = silence(header_timeout, first_request) => return,
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection broke");
        }
    }

    /// The peer of one request: behind a trusted proxy, the last address that no trusted proxy wrote, with a place of
    /// its own among the unclaimed. `None` if there is none for it.
    fn peer_of(&self, peer: &Peer, headers: &HeaderMap) -> Option<Peer> {
        let Some(address) = peer.address.filter(|address| self.is_trusted(*address)) else {
            return Some(peer.clone());
        };
        let forwarded = headers.get_all("x-forwarded-for").iter().rev();
        let client = forwarded
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.rsplit(','))
            .filter_map(|text| text.trim().parse::<IpAddr>().ok())
            .find(|address| !self.is_trusted(*address));
        match client {
            Some(client) if !client.to_canonical().is_loopback() => {
                let slot = Some(Arc::new(self.slots.take_forwarded(client, peer.slot.clone())?));
                Some(Peer { address: Some(client), slot, ..peer.clone() })
            }
            _ => Some(Peer { address: Some(client.unwrap_or(address)), ..peer.clone() }),
        }
    }
}

/// For whom there is no place.
fn too_many() -> Response {
    let retry = [(header::RETRY_AFTER, retry_soon().to_string())];
    (StatusCode::TOO_MANY_REQUESTS, retry, "too many connections from your address").into_response()
}

async fn serve_request(
    router: Router,
    peer: Peer,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let mut request = request.map(Body::new);
    if let Some(address) = peer.address {
        request.extensions_mut().insert(Source(address));
    }
    request.extensions_mut().insert(peer);
    router.oneshot(request).await
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
