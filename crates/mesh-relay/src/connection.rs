//! A connection from its login to its end: one task that writes what waits for the client, and handles what it sends.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mesh_derp::websocket::WebSocketError;
use mesh_derp::{Login, LoginError, NONCE_BYTES, Session, SessionError};
use mesh_tls::RecordError;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::admission::Candidate;
use crate::limits::Pace;
use crate::link::Link;
use crate::places::Place;
use crate::refusal::Refusal;
use crate::relay::{LOGIN_DEADLINE, Shared};
use crate::workers::{HANDSHAKE_CHARGE, charge};
use crate::writer::{WRITE_DEADLINE, Writer, write_all};

/// Bytes that a read before the login asks for.
const READ_BYTES: usize = 4 << 10;

/// After so many bytes of a client that are handled, others get their turn.
const TURN_BYTES: usize = 32 << 10;

/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// Why a connection ended, for the log.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("nothing in time")]
    Timeout,
    #[error("relay ends")]
    Cancelled,
    #[error("place before the login went to a newcomer")]
    Displaced,
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("request is not HTTP/1: {0}")]
    Head(#[from] httparse::Error),
    #[error("head of request is too long")]
    HeadTooLong,
    #[error("login: {0}")]
    Login(#[from] LoginError),
    #[error("client is not admitted")]
    NotAdmitted,
    #[error("no randomness")]
    Random,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("client takes in nothing")]
    WriteTimeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConnectionError {
    /// What the end counts as; `None` for one that is nobody's fault or has a counter of its own.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Timeout => Some(Refusal::Timeout),
            Self::Displaced => Some(Refusal::Displaced),
            Self::Tls(error) => {
                (error.kind() == io::ErrorKind::InvalidData).then_some(Refusal::Tls)
            }
            Self::Head(_) | Self::HeadTooLong => Some(Refusal::Http),
            Self::Login(_) => Some(Refusal::Login),
            Self::Session(_) => Some(Refusal::Frame),
            Self::Io(error) => {
                let cause = error.get_ref()?;
                match cause.downcast_ref::<RecordError>() {
                    None => cause.downcast_ref::<WebSocketError>().map(|_| Refusal::WebSocket),
                    // The client goes, and says why.
                    Some(RecordError::Alert(_)) => None,
                    Some(_) => Some(Refusal::Tls),
                }
            }
            Self::Cancelled | Self::NotAdmitted | Self::Random | Self::WriteTimeout => None,
        }
    }
}

/// Logs a client in and relays for it until one side ends it.
///
/// `input` holds what was read already, `out` what is still to be written before the greeting; `place` is
/// the connection's place among those that have not logged in.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    mut link: impl Link,
    input: BytesMut,
    out: Vec<u8>,
    place: Place,
) -> Result<(), ConnectionError> {
    let result = log_in_and_run(&shared, &mut link, input, out, place).await;
    if matches!(result, Err(ConnectionError::WriteTimeout | ConnectionError::Displaced)) {
        return result;
    }
    // What the client still hears is not worth an error.
    let _ = Box::pin(timeout(CLOSE_DEADLINE, link.shutdown())).await;
    result
}

async fn log_in_and_run(
    shared: &Arc<Shared>,
    link: &mut impl Link,
    mut input: BytesMut,
    out: Vec<u8>,
    place: Place,
) -> Result<(), ConnectionError> {
    let login = async {
        let login = log_in(shared, link, &mut input, out).await?;
        let source = place.remote().map(|remote| remote.ip().to_canonical());
        ask(shared, Candidate { key: login.key, source }, login.is_mesh).await?;
        Ok(login)
    };
    let login = Box::pin(shared.within(&place, LOGIN_DEADLINE, login)).await?;
    let mut first = Vec::new();
    let rate = shared.limits.get().client.filter(|_| !login.is_mesh);
    login.encode_server_info(rate, random_nonce()?, &mut first);
    let mut connection = Connection::join(shared, &login, place.remote())?;
    drop((login, place));

    let mut writer = Writer::new(Arc::clone(shared), first);
    // Its own, for it is asked in each turn, and all would wait for the lock of one.
    let cancel = shared.cancel.child_token();
    tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(()),
        result = connection.run(link, &mut writer, input) => result,
    }
}

async fn log_in<IO>(
    shared: &Shared,
    io: &mut IO,
    input: &mut BytesMut,
    mut out: Vec<u8>,
) -> Result<Login, ConnectionError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    shared.login.encode_greeting(&mut out);
    let written = write_all(io, &out, WRITE_DEADLINE).await;
    written.map_err(|_| ConnectionError::WriteTimeout)??;
    loop {
        let mut rest = &input[..];
        let login = shared.login.handle_input(&mut rest);
        if !matches!(login, Ok(None)) {
            charge(HANDSHAKE_CHARGE);
        }
        if let Some(login) = login? {
            let taken = input.len() - rest.len();
            input.advance(taken);
            return Ok(login);
        }
        read_more(io, input).await?;
    }
}

/// Asks whether a client that has proved its key may go on to join. Other relays of the mesh may.
async fn ask(shared: &Shared, candidate: Candidate, is_mesh: bool) -> Result<(), ConnectionError> {
    if is_mesh || shared.admission.ask(&candidate).await {
        return Ok(());
    }
    shared.stats.logins_refused.fetch_add(1, Ordering::Relaxed);
    Err(ConnectionError::NotAdmitted)
}

/// Waits for more bytes behind `input`, and charges for all of them: they are looked at anew.
pub(crate) async fn read_more<IO: AsyncRead + Unpin>(
    io: &mut IO,
    input: &mut BytesMut,
) -> io::Result<()> {
    input.reserve(READ_BYTES);
    if io.read_buf(input).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    charge(input.len() as u64);
    Ok(())
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], ConnectionError> {
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| ConnectionError::Random)?;
    Ok(nonce)
}

/// A logged-in connection. It leaves the table when it is dropped.
struct Connection {
    shared: Arc<Shared>,
    session: Session,
    pace: Pace,
}

impl Connection {
    fn join(
        shared: &Arc<Shared>,
        login: &Login,
        remote: Option<SocketAddr>,
    ) -> Result<Self, ConnectionError> {
        let remote = remote.unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
        let (table, now) = (Arc::clone(&shared.table), Instant::now().into_std());
        let admits = || login.is_mesh || shared.admission.admits(&login.key);
        let stats = &shared.stats;
        let Some(session) = Session::join(table, login.peer_present(remote), now, admits) else {
            stats.logins_refused.fetch_add(1, Ordering::Relaxed);
            return Err(ConnectionError::NotAdmitted);
        };
        stats.logins.fetch_add(1, Ordering::Relaxed);
        stats.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Self { shared: Arc::clone(shared), session, pace: Pace::new(login.is_mesh) })
    }

    /// Writes what waits for the client and handles what it sends, `input` first, until one of both ends or
    /// the client is cut.
    async fn run(
        &mut self,
        link: &mut impl Link,
        writer: &mut Writer,
        input: BytesMut,
    ) -> Result<(), ConnectionError> {
        self.session.take(&input, Instant::now().into_std())?;
        drop(input);
        let client = Arc::clone(self.session.client());
        poll_fn(|cx| {
            client.register(cx.waker());
            if client.is_cut() {
                return Poll::Ready(Ok(()));
            }
            writer.poll_write(link, &client, cx)?;
            self.poll_read(link, cx)
        })
        .await
    }

    /// Handles what has come, at most a turn's worth. Ready at the end alone.
    fn poll_read(
        &mut self,
        link: &mut impl Link,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        let (mut bytes, now) = (0, Instant::now().into_std());
        let Shared { limits, stats, .. } = &*self.shared;
        while bytes < TURN_BYTES {
            ready!(self.pace.poll_ready(limits, stats, cx));
            let mut taken = 0;
            let received = link.poll_receive(cx, |chunk| {
                taken += chunk.len();
                Ok::<_, ConnectionError>(self.session.take(chunk, now)?)
            });
            let counts = self.session.take_counts();
            stats.add(&counts);
            match received? {
                Poll::Ready(0) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Poll::Ready(more) => {
                    // Clients keep to a rate of frames. Time is what all that came around them costs, too.
                    self.pace.took(taken, counts.queue_full_bytes());
                    charge(more as u64);
                    bytes += more;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = &self.shared.stats;
        stats.add(&self.session.leave());
        stats.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
