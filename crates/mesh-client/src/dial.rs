//! From a URL to a finished handshake: TCP, TLS, `GET /key`, `POST /ts2021`.
//!
//! The URL is dialled as it is given; the search over ports 80 and 443 that stock clients do is left out.
//! Source: tailscale `control/controlclient/direct.go`, `control/controlhttp/client.go`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh_keys::{MachinePrivate, MachinePublic};
use mesh_noise::{FRAME_HEADER_BYTES, HandshakeError, Initiator, Transport, answer_bytes};
use mesh_noise_io::NoiseStream;
use mesh_wire::{CapabilityVersion, OverTlsPublicKeyResponse};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::ControlUrl;
use crate::client::{RequestError, read_answer, read_body};

/// How long a dial may take until the handshake is done, as with stock clients.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer to `/key`.
pub const KEY_BODY_BYTES_MAX: usize = 64 * 1024;

/// Value of the `Upgrade` header, both ways.
const PROTOCOL: &str = "tailscale-control-protocol";
/// The request header that carries the handshake's initiation in base64.
const HANDSHAKE_HEADER: &str = "X-Tailscale-Handshake";

/// Why there is no channel to the server.
#[derive(Debug, Error)]
pub enum DialError {
    /// The server cannot be reached, speaks no TLS, or has a certificate that we do not trust.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The host in the URL is no name that a certificate could be for.
    #[error("host is no valid TLS server name")]
    ServerName,
    /// [`DIAL_TIMEOUT`] is over.
    #[error("dial timed out")]
    Timeout,
    /// The server's answer to `/key` or `/ts2021` is no success.
    #[error("control server refused")]
    Request(#[from] RequestError),
    /// The answer to `/key` is no key.
    #[error("control server's key is malformed")]
    Key(#[source] serde_json::Error),
    /// The answer to `/key` lacks the Noise key.
    #[error("control server has no noise key")]
    NoKey,
    /// The server did not switch to the control protocol.
    #[error("control server did not switch protocols")]
    NotSwitched,
    /// The version is above 65,535: it does not fit the handshake.
    #[error("capability version {0} does not fit the handshake")]
    Version(CapabilityVersion),
    /// The Noise handshake failed.
    #[error("handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The connection ended within the handshake.
    #[error("connection ended within the handshake")]
    Interrupted(#[source] io::Error),
}

/// A control server and how to reach it. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    url: ControlUrl,
    tls: TlsConnector,
    /// Which of our addresses to dial from; `None` leaves it to the system.
    source: Option<IpAddr>,
    /// Bytes of the socket's receive buffer; `None` lets it grow with the traffic.
    receive_buffer: Option<u32>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What the Noise channel runs over.
type ChannelIo = TokioIo<Upgraded>;

impl Dialer {
    /// Makes a dialer for `url`; an `https` server's certificate must lead to one of `roots`.
    pub fn new(url: ControlUrl, roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("invariant: ring supports the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { url, tls: TlsConnector::from(Arc::new(config)), source: None, receive_buffer: None }
    }

    /// The same dialer from another address of this machine. Each has some 28,000 ports towards one server.
    #[must_use]
    pub fn with_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same dialer with a receive buffer of so many bytes for each socket, or what the system makes of that.
    #[must_use]
    pub fn with_receive_buffer(self, bytes: u32) -> Self {
        Self { receive_buffer: Some(bytes), ..self }
    }

    /// The server's URL.
    pub fn url(&self) -> &ControlUrl {
        &self.url
    }

    /// Asks the server for its Noise key.
    pub async fn server_key(&self, version: CapabilityVersion) -> Result<MachinePublic, DialError> {
        within_timeout(self.fetch_server_key(version)).await
    }

    async fn fetch_server_key(
        &self,
        version: CapabilityVersion,
    ) -> Result<MachinePublic, DialError> {
        let request = self.request(Method::GET, &format!("/key?v={version}"));
        let answer = self.send(request).await?;
        let answer = read_answer(answer, KEY_BODY_BYTES_MAX).await?;
        let keys: OverTlsPublicKeyResponse =
            serde_json::from_slice(answer.body()).map_err(DialError::Key)?;
        keys.public_key.non_zero().ok_or(DialError::NoKey)
    }

    /// Sends a request outside the channel, as the server's key is asked for, and returns the answer, whatever its status.
    ///
    /// Of the request's URI only path and query count; the server is this dialer's.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] for an answer of more than [`KEY_BODY_BYTES_MAX`] bytes.
    pub async fn request_outside(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, DialError> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let uri = target.parse().expect("invariant: a URI's path and query are a URI");
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::HOST, self.host());
        within_timeout(async {
            Ok(read_body(self.send(request).await?, KEY_BODY_BYTES_MAX).await?)
        })
        .await
    }

    /// Opens a channel to the server that holds `server_key`.
    pub(crate) async fn open(
        &self,
        machine_key: &MachinePrivate,
        version: CapabilityVersion,
        server_key: &MachinePublic,
    ) -> Result<NoiseStream<ChannelIo>, DialError> {
        let noise_version = version.0.try_into().map_err(|_| DialError::Version(version))?;
        let initiator = Initiator::new(machine_key, server_key, noise_version)?;
        // A handshake under way takes kilobytes, which not all who may dial shall set aside.
        within_timeout(Box::pin(self.upgrade(initiator))).await
    }

    async fn upgrade(&self, initiator: Initiator) -> Result<NoiseStream<ChannelIo>, DialError> {
        let mut request = self.request(Method::POST, "/ts2021");
        let headers = request.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        let initiation = BASE64.encode(initiator.initiation());
        let initiation = initiation.parse().expect("invariant: base64 is a header value");
        headers.insert(HANDSHAKE_HEADER, initiation);
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // An error of the server says what is wrong; success would be a misunderstanding.
            read_answer(answer, KEY_BODY_BYTES_MAX).await?;
            return Err(DialError::NotSwitched);
        }
        if answer.headers().get(header::UPGRADE).is_none_or(|value| value != PROTOCOL) {
            return Err(DialError::NotSwitched);
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(RequestError::Http)?;
        let mut io = TokioIo::new(upgraded);
        let transport = finish(&mut io, initiator).await?;
        Ok(NoiseStream::new(io, transport))
    }

    fn request(&self, method: Method, target: &str) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.host())
            .body(Full::default())
            .expect("invariant: the targets here are URIs")
    }

    fn host(&self) -> HeaderValue {
        let host = self.url.authority().try_into();
        host.expect("invariant: a control URL's authority is a header value")
    }

    /// Sends a request over a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, DialError> {
        let tcp = self.connect().await.map_err(DialError::Connect)?;
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        if !self.url.is_tls() {
            return send_over(tcp, request).await;
        }
        let name =
            ServerName::try_from(self.url.host().to_owned()).map_err(|_| DialError::ServerName)?;
        let tls = self.tls.connect(name, tcp).await.map_err(DialError::Connect)?;
        send_over(tls, request).await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let address = (self.url.host(), self.url.port());
        if self.source.is_none() && self.receive_buffer.is_none() {
            return TcpStream::connect(address).await;
        }
        let is_ours = |address: &SocketAddr| {
            self.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
        };
        let address = lookup_host(address).await?.find(is_ours);
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(address).await
    }
}

/// Sends one HTTP/1.1 request. The task that it starts ends with the answer's body, or with the upgrade.
async fn send_over<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: IO,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, DialError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(RequestError::Http)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await.map_err(RequestError::Http)?)
}

/// Reads the server's answer to the handshake.
async fn finish(io: &mut ChannelIo, initiator: Initiator) -> Result<Transport, DialError> {
    let mut answer = vec![0; FRAME_HEADER_BYTES];
    io.read_exact(&mut answer).await.map_err(DialError::Interrupted)?;
    answer.resize(answer_bytes([answer[0], answer[1], answer[2]])?, 0);
    io.read_exact(&mut answer[FRAME_HEADER_BYTES..]).await.map_err(DialError::Interrupted)?;
    Ok(initiator.finish(&answer)?)
}

async fn within_timeout<T>(
    dial: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    timeout(DIAL_TIMEOUT, dial).await.unwrap_or(Err(DialError::Timeout))
}
