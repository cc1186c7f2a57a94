//! A connection from its login to its end: one task that writes what waits for the client, and handles what it sends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mesh_derp::{
    Action, ClientFrame, ClientState, CloseReason, FrameBuffer, FrameError, Login, LoginError,
    NONCE_BYTES, PacketKind, PeerGoneReason, Tally,
};
use mesh_keys::NodePublic;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::link::Link;
use crate::relay::{LOGIN_DEADLINE, Shared};
use crate::stats::{DropReason, LocalCounts};
use crate::writer::{Writer, write_all};

/// Bytes that a read before the login asks for.
const READ_BYTES: usize = 4 << 10;

/// After so many bytes of a client that are handled, or for it that are written, others get their turn.
pub(crate) const TURN_BYTES: usize = 64 << 10;

/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// Destinations that a connection remembers before it looks for some to forget.
const ROUTES_KEPT_MIN: usize = 64;

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
    Frame(#[from] FrameError),
    #[error(transparent)]
    Closed(#[from] CloseReason),
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
    let mut connection = Connection::join(shared, &login)?;
    drop((login, permit));

    let cut = connection.client.cut.clone();
    let mut writer = Writer::new(Arc::clone(&connection.shared.stats), first);
    let result = tokio::select! {
        biased;
        () = cut.cancelled() => Ok(()),
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

/// A logged-in connection as its reader holds it. It leaves the registry when it is dropped.
struct Connection {
    shared: Arc<Shared>,
    client: Arc<Client>,
    state: ClientState,
    /// Whom this connection has sent packets to: found without the table the next time, and told when the
    /// peer is gone.
    routes: HashMap<NodePublic, Arc<Client>>,
    /// How many routes there are to be until those are forgotten that lead nowhere.
    routes_kept: usize,
    counts: LocalCounts,
    frames: FrameBuffer,
}

impl Connection {
    fn join(shared: Arc<Shared>, login: &Login) -> Result<Self, ConnectionError> {
        let client = Arc::new(Client::new(login.key, &shared.cancel));
        if !shared.registry.join(&client, || shared.admission.admits(&login.key)) {
            shared.stats.logins_refused.fetch_add(1, Ordering::Relaxed);
            return Err(ConnectionError::NotAdmitted);
        }
        shared.stats.logins.fetch_add(1, Ordering::Relaxed);
        shared.stats.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            shared,
            client,
            state: ClientState::new(Instant::now().into_std()),
            routes: HashMap::new(),
            routes_kept: ROUTES_KEPT_MIN,
            counts: LocalCounts::default(),
            frames: FrameBuffer::default(),
        })
    }

    /// Writes what waits for the client and handles what it sends, `input` first, until one of both ends.
    async fn run(
        &mut self,
        link: &mut impl Link,
        writer: &mut Writer,
        input: BytesMut,
    ) -> Result<(), ConnectionError> {
        self.take(&input)?;
        drop(input);
        poll_fn(|cx| {
            self.client.register(cx.waker());
            writer.poll_write(link, &self.client, cx)?;
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
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            let received = link.poll_receive(cx, |chunk| self.take(chunk));
            self.counts.flush(&self.shared.stats);
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

    fn take(&mut self, chunk: &[u8]) -> Result<(), ConnectionError> {
        let mut frames = std::mem::take(&mut self.frames);
        let taken = frames.take_from_client(chunk, |frame| self.handle_frame(frame));
        self.frames = frames;
        taken
    }

    fn handle_frame(&mut self, frame: &ClientFrame<'_>) -> Result<(), ConnectionError> {
        if !self.client.is_active() {
            self.shared.registry.activate(&self.client);
        }
        match self.state.handle_frame(frame) {
            Action::Forward { dst, kind, payload } => self.forward(dst, kind, payload),
            Action::Pong(data) => {
                self.client.push(|outbox| outbox.push_pong(data));
            }
            Action::HomeChanged { home: true } => {
                self.shared.stats.home_clients.fetch_add(1, Ordering::Relaxed);
            }
            Action::HomeChanged { home: false } => {
                self.shared.stats.home_clients.fetch_sub(1, Ordering::Relaxed);
            }
            Action::Ignore => {}
            Action::Close(reason) => return Err(reason.into()),
        }
        Ok(())
    }

    fn forward(&mut self, dst: NodePublic, kind: PacketKind, payload: &[u8]) {
        self.counts.received[kind as usize].add(payload.len());
        let src = self.client.key;
        let this = Tally { packets: 1, bytes: payload.len() as u64 };
        let (reason, dropped) = match self.route(&dst) {
            None => {
                self.answer_absent(dst, kind);
                (DropReason::UnknownDestination, this)
            }
            Some(client) => match client.push(|outbox| outbox.push_packet(kind, src, payload)) {
                None => (DropReason::DestinationGone, this),
                Some(oldest) => (DropReason::QueueFull, oldest),
            },
        };
        let counted = &mut self.counts.dropped[reason as usize][kind as usize];
        counted.packets += dropped.packets;
        counted.bytes += dropped.bytes;
    }

    /// The connection that packets for `dst` go to.
    fn route(&mut self, dst: &NodePublic) -> Option<&Client> {
        if !self.routes.get(dst).is_some_and(|client| client.is_active()) {
            let client = self.shared.registry.find(dst)?;
            if self.routes.len() >= self.routes_kept {
                self.routes.retain(|_, client| !client.has_left());
                self.routes_kept = ROUTES_KEPT_MIN.max(2 * self.routes.len());
            }
            self.routes.insert(*dst, client);
        }
        self.routes.get(dst).map(|client| &**client)
    }

    fn answer_absent(&mut self, dst: NodePublic, kind: PacketKind) {
        if self.state.handle_absent(kind, Instant::now().into_std()) {
            self.client.push(|outbox| outbox.push_gone(dst, PeerGoneReason::NotHere));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = &self.shared.stats;
        self.shared.registry.leave(&self.client, self.routes.keys().copied());
        stats.dropped(DropReason::DestinationGone).add(&self.client.close());
        self.counts.flush(stats);
        stats.clients.fetch_sub(1, Ordering::Relaxed);
        if self.state.is_home() {
            stats.home_clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
