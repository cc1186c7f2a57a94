//! A connection from its login to its end: one task that writes what waits for the client, and handles what it sends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mesh_derp::{Login, LoginError, NONCE_BYTES, Session, SessionError};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::link::Link;
use crate::relay::{LOGIN_DEADLINE, Shared};
use crate::stats::RelayStats;
use crate::writer::{Writer, write_all};

/// Bytes that a read before the login asks for.
const READ_BYTES: usize = 4 << 10;

/// After so many bytes of a client that are handled, or for it that are written, others get their turn.
pub(crate) const TURN_BYTES: usize = 64 << 10;

/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// Why a connection ended, for the log.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("nothing in time")]
    Timeout,
    #[error("relay ends")]
    Cancelled,
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

/// Logs a client in and relays for it until one side ends it.
///
/// `input` holds what was read already, `out` what is still to be written before the greeting; `permit` is
/// the connection's place among those that have not logged in.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    mut link: impl Link,
    mut input: BytesMut,
    out: Vec<u8>,
    permit: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    let login = log_in(&shared, &mut link, &mut input, out);
    let login = shared.within(LOGIN_DEADLINE, login).await?;
    let mut first = Vec::new();
    login.encode_server_info(random_nonce()?, &mut first);
    let mut connection = Connection::join(&shared, &login)?;
    drop((login, permit));

    let mut writer = Writer::new(Arc::clone(&shared.stats), first);
    let result = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => Ok(()),
        result = connection.run(&mut link, &mut writer, input) => result,
    };
    drop((connection, writer));
    if matches!(result, Err(ConnectionError::WriteTimeout)) {
        return result;
    }
    // What the client still hears is not worth an error.
    let _ = timeout(CLOSE_DEADLINE, link.shutdown()).await;
    result
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
    write_all(io, &out).await?;
    loop {
        let mut rest = &input[..];
        if let Some(login) = shared.login.handle_input(&mut rest)? {
            let taken = input.len() - rest.len();
            input.advance(taken);
            return Ok(login);
        }
        read_more(io, input).await?;
    }
}

/// Waits for more bytes behind `input`.
pub(crate) async fn read_more<IO: AsyncRead + Unpin>(
    io: &mut IO,
    input: &mut BytesMut,
) -> io::Result<()> {
    input.reserve(READ_BYTES);
    match io.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], ConnectionError> {
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| ConnectionError::Random)?;
    Ok(nonce)
}

/// A logged-in connection. It leaves the table when it is dropped.
struct Connection {
    stats: Arc<RelayStats>,
    session: Session,
}

impl Connection {
    fn join(shared: &Shared, login: &Login) -> Result<Self, ConnectionError> {
        let (table, now) = (Arc::clone(&shared.table), Instant::now().into_std());
        let admits = || shared.admission.admits(&login.key);
        let stats = Arc::clone(&shared.stats);
        let Some(session) = Session::join(table, login.key, now, admits) else {
            stats.logins_refused.fetch_add(1, Ordering::Relaxed);
            return Err(ConnectionError::NotAdmitted);
        };
        stats.logins.fetch_add(1, Ordering::Relaxed);
        stats.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Self { stats, session })
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
        while bytes < TURN_BYTES {
            let received = link
                .poll_receive(cx, |chunk| Ok::<_, ConnectionError>(self.session.take(chunk, now)?));
            self.stats.add(&self.session.take_counts());
            match received? {
                Poll::Ready(0) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Poll::Ready(more) => bytes += more,
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.add(&self.session.leave());
        self.stats.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
