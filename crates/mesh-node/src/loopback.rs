//! A node for other programs on the machine: SOCKS5 and Tailscale's local API, on a port that only they know.
//!
//! The two halves stand alone as well: [`socks5::serve`] takes any way to dial, and [`router`] is served wherever a
//! program likes, such as on a unix socket. Who may ask is then the program's to see to.

mod ipnstate;
mod local_api;
pub mod socks5;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use data_encoding::{BASE64, HEXLOWER};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::{Node, NodeError, Stream};

pub use ipnstate::{
    BackendState, Netcheck, PeerStatus, PingResult, Status, TailnetStatus, WhoIsResponse,
};
pub use local_api::router;

/// Most connections that [`serve_each`] serves at once. Whoever comes then waits until one ends.
pub const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take to say what it wants.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long a peer may take to answer a call, as long as an operating system tries without a word.
const DIAL_MAX: Duration = Duration::from_secs(30);

/// Random bytes of a credential, told as twice as many hexadecimal digits.
const CREDENTIAL_BYTES: usize = 16;

/// The user that SOCKS5 asks for.
///
/// Source: tailscale `tsnet/tsnet.go`, `Loopback`.
const PROXY_USER: &str = "tsnet";

/// Why a node has no port on the machine's loopback interface.
///
/// ```
/// # use std::sync::Arc;
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// # let node = Arc::new(node);
/// use mesh_node::loopback::LoopbackError;
///
/// match node.loopback().await {
///     Ok(door) => println!("serving at {}", door.address()),
///     Err(LoopbackError::Listen(error)) => println!("no port is free: {error}"),
///     Err(LoopbackError::Random(error)) => println!("no credentials: {error}"),
/// }
/// # Ok(()) });
/// ```
#[derive(Debug, Error)]
pub enum LoopbackError {
    /// No port can be had.
    #[error("cannot listen on the loopback interface")]
    Listen(#[from] io::Error),
    /// The system has no randomness for credentials.
    #[error("no randomness for credentials")]
    Random(#[from] getrandom::Error),
}

/// A port of this machine that leads into the tailnet. It closes when this is dropped; until then the node lives, too.
///
/// ```
/// # use std::sync::Arc;
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// # let node = Arc::new(node);
/// let door = node.loopback().await?;
/// println!("ALL_PROXY=socks5h://tsnet:{}@{}", door.proxy_credential(), door.address());
/// println!(
///     "curl -u :{} -H 'Sec-Tailscale: localapi' http://{}/localapi/v0/status",
///     door.local_api_credential(),
///     door.address()
/// );
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Loopback {
    address: SocketAddr,
    proxy_credential: String,
    local_api_credential: String,
    _task: AbortOnDropHandle<Infallible>,
}

impl Loopback {
    /// Where SOCKS5 and the local API are served.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # let node = Arc::new(node);
    /// let door = node.loopback().await?;
    /// assert!(door.address().ip().is_loopback());
    /// # Ok(()) });
    /// ```
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The password of SOCKS5, whose user is `tsnet`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # let node = Arc::new(node);
    /// let door = node.loopback().await?;
    /// assert_eq!(door.proxy_credential().len(), 32);
    /// # Ok(()) });
    /// ```
    pub fn proxy_credential(&self) -> &str {
        &self.proxy_credential
    }

    /// The password of the local API, for basic authentication with any user. A request also has to carry the header
    /// `Sec-Tailscale: localapi`, which no web page can send.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # let node = Arc::new(node);
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// use tokio::net::TcpStream;
    ///
    /// let door = node.loopback().await?;
    /// let login = data_encoding::BASE64.encode(format!(":{}", door.local_api_credential()).as_bytes());
    /// let request = format!(
    ///     "GET /localapi/v0/status HTTP/1.0\r\nHost: node\r\nSec-Tailscale: localapi\r\n\
    ///      Authorization: Basic {login}\r\n\r\n"
    /// );
    /// let mut stream = TcpStream::connect(door.address()).await?;
    /// stream.write_all(request.as_bytes()).await?;
    /// let mut answer = String::new();
    /// stream.read_to_string(&mut answer).await?;
    /// assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    /// # Ok(()) });
    /// ```
    pub fn local_api_credential(&self) -> &str {
        &self.local_api_credential
    }
}

impl Node {
    /// Opens a port on the machine's loopback interface that serves SOCKS5 and the local API to whoever has the
    /// credentials, as `tsnet` does.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # let node = Arc::new(node);
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// use tokio::net::TcpStream;
    ///
    /// let door = node.loopback().await?;
    /// let mut client = TcpStream::connect(door.address()).await?;
    /// // SOCKS5, with a password.
    /// client.write_all(&[5, 1, 2]).await?;
    /// let mut answer = [0; 2];
    /// client.read_exact(&mut answer).await?;
    /// assert_eq!(answer, [5, 2]);
    /// # Ok(()) });
    /// ```
    pub async fn loopback(self: &Arc<Self>) -> Result<Loopback, LoopbackError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (proxy_credential, local_api_credential) = (credential()?, credential()?);
        let login =
            socks5::Login { user: PROXY_USER.to_owned(), password: proxy_credential.clone() };
        let guard = middleware::from_fn_with_state(local_api_credential.clone().into(), authorize);
        let door = Arc::new(Door {
            node: Arc::clone(self),
            login,
            router: router(Arc::clone(self)).layer(guard),
        });
        let task =
            tokio::spawn(serve_each(listener, move |stream| Arc::clone(&door).serve(stream)));
        Ok(Loopback {
            address,
            proxy_credential,
            local_api_credential,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Dials for a program that was not told how long to wait.
    async fn dial_for(&self, address: &str) -> Result<Stream, DialError> {
        Ok(timeout(DIAL_MAX, self.dial(address)).await.map_err(|_| DialError::TimedOut)??)
    }
}

/// Why another program is not connected.
#[derive(Debug, Error)]
enum DialError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("no answer within {} s", DIAL_MAX.as_secs())]
    TimedOut,
}

/// Takes connections and handles each in a task of its own, at most [`CONNECTIONS_MAX`] at once. All end with this.
///
/// ```
/// # use std::sync::Arc;
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
/// # let node = Arc::new(node);
/// use std::net::Ipv4Addr;
///
/// use mesh_node::loopback::{router, serve_each, serve_http};
/// use tokio::net::TcpListener;
///
/// let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
/// let api = router(Arc::clone(&node));
/// let served = serve_each(listener, move |stream| serve_http(stream, api.clone()));
/// # drop(served);
/// # Ok(()) });
/// ```
pub async fn serve_each<L, H>(mut listener: L, handle: impl Fn(L::Io) -> H) -> Infallible
where
    L: Listener,
    H: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Those that have ended make room for others.
            Some(_) = tasks.join_next() => {}
            (stream, _) = listener.accept(), if tasks.len() < CONNECTIONS_MAX => {
                tasks.spawn(handle(stream));
            }
        }
    }
}

/// Serves HTTP on one connection, until it ends or becomes another protocol's.
///
/// ```
/// #
/// # mesh_testkit::example(async |_tailnet| {
/// use axum::Router;
/// use axum::routing::get;
/// use mesh_node::loopback::serve_http;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// let (mut client, server) = tokio::io::duplex(1024);
/// let router = Router::new().route("/", get(|| async { "hello" }));
/// client.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// serve_http(server, router).await;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert!(answer.ends_with("hello"));
/// # Ok(()) });
/// ```
pub async fn serve_http<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_MAX);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.with_upgrades().await {
        debug!(error = &error as &dyn std::error::Error, "connection to the local API broke");
    }
}

/// What stands behind the port.
struct Door {
    node: Arc<Node>,
    login: socks5::Login,
    router: Router,
}

impl Door {
    /// Serves what the first byte shows: SOCKS5 begins with its version, and HTTP with a letter.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut first = [0];
        let Ok(Ok(1)) = timeout(HANDSHAKE_MAX, stream.peek(&mut first)).await else { return };
        if first != [socks5::VERSION] {
            return serve_http(stream, self.router.clone()).await;
        }
        let node = &self.node;
        let dial =
            |to: String| async move { node.dial_for(&to).await.map_err(|error| meaning(&error).1) };
        if let Err(error) = socks5::serve(stream, Some(&self.login), dial).await {
            debug!(error = &error as &dyn std::error::Error, "SOCKS5 connection broke");
        }
    }
}

/// What an error means to a client of either protocol.
fn meaning(error: &DialError) -> (StatusCode, socks5::Reply) {
    use socks5::Reply;
    let DialError::Node(error) = error else {
        return (StatusCode::GATEWAY_TIMEOUT, Reply::TimedOut);
    };
    match error {
        NodeError::Address(_) => (StatusCode::BAD_REQUEST, Reply::GeneralFailure),
        NodeError::UnknownName(_) | NodeError::NoPeer(_) => {
            (StatusCode::NOT_FOUND, Reply::HostUnreachable)
        }
        NodeError::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (StatusCode::BAD_GATEWAY, Reply::ConnectionRefused)
        }
        NodeError::Connect(..) | NodeError::NoAnswer(_) => {
            (StatusCode::GATEWAY_TIMEOUT, Reply::TimedOut)
        }
        NodeError::Refused(_)
        | NodeError::LoggedOut
        | NodeError::NotTold(_)
        | NodeError::State(_)
        | NodeError::Closed => (StatusCode::SERVICE_UNAVAILABLE, Reply::GeneralFailure),
    }
}

fn credential() -> Result<String, getrandom::Error> {
    let mut bytes = [0; CREDENTIAL_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

async fn authorize(State(credential): State<Arc<str>>, request: Request, next: Next) -> Response {
    match check(request.headers(), &credential) {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_response(),
    }
}

fn check(headers: &HeaderMap, credential: &str) -> Result<(), StatusCode> {
    if headers.get("sec-tailscale").is_none_or(|value| value != "localapi") {
        return Err(StatusCode::FORBIDDEN);
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Basic "));
    let given = given.and_then(|value| BASE64.decode(value.as_bytes()).ok()).unwrap_or_default();
    let colon = given.iter().position(|byte| *byte == b':').ok_or(StatusCode::UNAUTHORIZED)?;
    let is_right: bool = given[colon + 1..].ct_eq(credential.as_bytes()).into();
    if is_right { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}

#[cfg(test)]
mod tests;
