//! The relay's own door: a TLS listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::ConnectionError;
use crate::door;
use crate::relay::{Shared, log_end};
use crate::wide::Wide;

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a failed accept (no file descriptors, mostly) puts off the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// When TCP itself asks whether a silent peer is still there: late, to spare the batteries of phones.
const TCP_KEEPALIVE: Duration = Duration::from_mins(10);

/// How long sent bytes may stay unacknowledged until the connection is dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// A running listener. It ends when it is dropped, with all its connections.
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
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}

pub(crate) async fn spawn(
    shared: Arc<Shared>,
    addr: SocketAddr,
    tls: ServerConfig,
) -> io::Result<ServiceHandle> {
    let socket = TcpListener::bind(addr).await?;
    let local_addr = socket.local_addr()?;
    let listener = Listener { shared, socket, tls: TlsAcceptor::from(Arc::new(tls)) };
    Ok(ServiceHandle::new(local_addr, AbortOnDropHandle::new(tokio::spawn(listener.run()))))
}

struct Listener {
    shared: Arc<Shared>,
    socket: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    /// Accepts connections until the relay is cancelled, then waits for those that are left.
    async fn run(self) {
        let Self { shared, socket, tls } = self;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shared.cancel.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&shared, &socket) => {
                    if let Some((client, permit)) = accepted {
                        connections.spawn(serve(Arc::clone(&shared), tls.clone(), client, permit));
                    }
                }
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }
}

/// Accepts a connection once there is a place for it.
async fn accept(
    shared: &Shared,
    listener: &TcpListener,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = shared.enter().await?;
    match listener.accept().await {
        Ok((socket, _)) => {
            shared.stats.connections.fetch_add(1, Ordering::Relaxed);
            Some((socket, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "relay cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    socket: TcpStream,
    permit: OwnedSemaphorePermit,
) {
    log_end(serve_tls(shared, tls, socket, permit).await);
}

async fn serve_tls(
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    socket: TcpStream,
    permit: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    set_socket_options(&socket)?;
    let handshake = async { Ok(tls.accept(Wide::new(socket)).await?) };
    let stream = shared.within(HANDSHAKE_DEADLINE, handshake).await?;
    door::serve(shared, stream, permit).await
}
