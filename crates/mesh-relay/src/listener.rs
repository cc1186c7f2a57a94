//! The relay's own doors: TCP listeners with TLS, and without it for a proxy that does TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::connection::ConnectionError;
use crate::door;
use crate::places::Place;
use crate::refusal::Refusal;
use crate::relay::Shared;
use crate::tls::Tls;
use crate::wide::Wide;
use crate::workers::{HANDSHAKE_CHARGE, Workers, charge};

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a failed accept (no file descriptors, mostly) puts off the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that have not logged in and go then, to free their descriptors: newcomers go on at a thousand a second.
const DISPLACED_AT_ONCE: usize = 64;

/// How long it is until the log hears of failed accepts again.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// When TCP itself asks whether a silent peer is still there: late, to spare the batteries of phones.
const TCP_KEEPALIVE: Duration = Duration::from_mins(10);

/// How long sent bytes may stay unacknowledged until the connection is dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes that the kernel takes beyond what it can send just now. Packets that wait longer wait in the client's outbox,
/// where those of others can overtake them and the oldest are dropped; in the kernel, megabytes would wait.
#[cfg(target_os = "linux")]
const NOTSENT_BYTES_MAX: u32 = 128 << 10;

/// A running listener. It takes nobody in any more when it is dropped; connections go on until the last listener of
/// their relay is dropped.
#[derive(Debug)]
pub struct ServiceHandle {
    local_addr: SocketAddr,
    task: AbortOnDropHandle<()>,
}

impl ServiceHandle {
    pub(crate) fn new(local_addr: SocketAddr, task: AbortOnDropHandle<()>) -> Self {
        Self { local_addr, task }
    }

    /// The address it listens on, with the port it was given if it asked for none.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until it has ended after the relay was cancelled, and said goodbye to all clients.
    pub async fn stopped(self) {
        // Nothing to tell: the task cannot fail, and a panic in it has been reported.
        let _ = self.task.await;
    }
}

/// Sets the options that a relay wants on the sockets of its clients: small packets leave at once, and who
/// vanished is found out.
///
/// Source: tailscale `cmd/derper/derper.go`, its defaults.
pub fn set_socket_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(NOTSENT_BYTES_MAX)?;
    }
    Ok(())
}

pub(crate) async fn spawn(
    shared: Arc<Shared>,
    addr: SocketAddr,
    tls: Option<ServerConfig>,
) -> io::Result<ServiceHandle> {
    let socket = TcpListener::bind(addr).await?;
    let local_addr = socket.local_addr()?;
    let tls = tls.map(Arc::new);
    let workers = shared.workers.get_or_start()?;
    let listener = Listener { shared, workers, socket, tls };
    Ok(ServiceHandle::new(local_addr, AbortOnDropHandle::new(tokio::spawn(listener.run()))))
}

struct Listener {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Accepts connections until the doors close, then waits for those that are left.
    async fn run(self) {
        let Self { shared, workers, socket, tls } = self;
        let connections = TaskTracker::new();
        let mut complained_at = None;
        loop {
            tokio::select! {
                biased;
                () = shared.doors.cancelled() => break,
                accepted = accept(&shared, &socket, &mut complained_at) => {
                    if let Some((client, place)) = accepted {
                        let serve = serve(Arc::clone(&shared), tls.clone(), client, place);
                        workers.spawn(connections.track_future(serve));
                    }
                }
            }
        }
        drop(socket);
        connections.close();
        connections.wait().await;
    }
}

/// Accepts a connection, if the limits allow.
async fn accept(
    shared: &Shared,
    listener: &TcpListener,
    complained_at: &mut Option<Instant>,
) -> Option<(std::net::TcpStream, Place)> {
    match listener.accept().await {
        Ok((socket, remote)) if shared.limits.accepts() => {
            Some((socket.into_std().ok()?, shared.enter(Some(remote))))
        }
        Ok(_) => {
            shared.stats.refuse(Refusal::AcceptRate);
            None
        }
        // It left before it came in.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            shared.places.displace(DISPLACED_AT_ONCE);
            if complained_at.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
                *complained_at = Some(Instant::now());
                tracing::warn!(%error, "relay cannot accept connections");
            }
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    socket: std::net::TcpStream,
    place: Place,
) {
    let end = serve_socket(Arc::clone(&shared), tls, socket, place).await;
    shared.end(end);
}

async fn serve_socket(
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    socket: std::net::TcpStream,
    place: Place,
) -> Result<(), ConnectionError> {
    // Here, for it to wake the thread that it stays on.
    let socket = TcpStream::from_std(socket)?;
    set_socket_options(&socket)?;
    // Who says nothing costs no more than this: what follows is made when it speaks.
    let spoken = async { Ok(socket.readable().await?) };
    shared.within(&place, HANDSHAKE_DEADLINE, spoken).await?;
    let Some(tls) = tls else {
        return Box::pin(door::serve(shared, Wide::new(socket), place)).await;
    };
    charge(HANDSHAKE_CHARGE);
    let handshake = async { Tls::accept(socket, tls).await.map_err(ConnectionError::Tls) };
    let stream = Box::pin(shared.within(&place, HANDSHAKE_DEADLINE, handshake)).await?;
    Box::pin(door::serve(shared, stream, place)).await
}

#[cfg(test)]
mod tests;
