//! A connection from its login to its end, and the reader in between.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};
use mesh_derp::{
    Action, ClientFrame, ClientState, CloseReason, FrameError, FrameReader, Login, LoginError,
    NONCE_BYTES, PacketKind, PeerGoneReason, Tally,
};
use mesh_keys::NodePublic;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::client::Client;
use crate::relay::{LOGIN_DEADLINE, Shared};
use crate::stats::{DropReason, LocalCounts};
use crate::writer::{Writer, write_all};

/// Bytes that a read asks for: a TLS record holds no more.
const READ_BYTES: usize = 16 << 10;

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
    #[error("writer ended: {0}")]
    Writer(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Logs a client in and relays for it until one side ends it.
///
/// `input` holds what was read already, `out` what is still to be written before the greeting; `permit` is
/// the connection's place among those that have not logged in.
pub(crate) async fn serve<IO>(
    shared: Arc<Shared>,
    mut io: IO,
    mut input: BytesMut,
    out: Vec<u8>,
    permit: OwnedSemaphorePermit,
) -> Result<(), ConnectionError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let login = log_in(&shared, &mut io, &mut input, out);
    let login = shared.within(LOGIN_DEADLINE, login).await?;
    let mut first = Vec::new();
    login.encode_server_info(random_nonce()?, &mut first);
    let mut connection = Connection::join(shared, &login)?;
    drop((login, permit));

    let client = Arc::clone(&connection.client);
    let (mut reader, writer) = tokio::io::split(io);
    let stats = Arc::clone(&connection.shared.stats);
    let writer = Writer { client: Arc::clone(&client), stats }.spawn(writer, first);
    let read = tokio::select! {
        biased;
        () = client.cut.cancelled() => Ok(()),
        read = connection.read(&mut reader, input) => read,
    };
    drop(connection);
    client.cut.cancel();
    read.and(writer.await?)
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
        })
    }

    /// Reads and handles frames to the end of the stream.
    async fn read<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        mut input: BytesMut,
    ) -> Result<(), ConnectionError> {
        let mut frames = FrameReader::new();
        loop {
            let mut rest = &input[..];
            while let Some(frame) = frames.next_from_client(&mut rest)? {
                self.handle_frame(&frame)?;
            }
            let taken = input.len() - rest.len();
            input.advance(taken);
            self.counts.flush(&self.shared.stats);
            if input.is_empty() && input.capacity() > 2 * READ_BYTES {
                input = BytesMut::new();
            }
            read_more(io, &mut input).await?;
        }
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
