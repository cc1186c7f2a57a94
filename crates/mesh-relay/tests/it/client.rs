//! A DERP client for tests, on `mesh-derp`'s client side.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mesh_derp::{
    ClientFrame, ClientInfo, ClientLogin, FrameReader, PROTOCOL_VERSION, PeerGoneReason,
    PeerPresent, ServerFrame,
};
use mesh_keys::{DerpPrivate, NodePrivate, NodePublic};
use mesh_relay::{Admission, Relay, Upgrade};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn relay_for(admission: impl Admission) -> Relay {
    let key = DerpPrivate::from_bytes([0x52; 32]);
    Relay::new(key, Arc::new(admission), CancellationToken::new())
}

pub(crate) fn relay() -> Relay {
    relay_for(|_: &NodePublic| true)
}

pub(crate) fn node(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

/// A stream to the relay's second door, with room for `bytes` on its way.
pub(crate) fn open(relay: &Relay, bytes: usize) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(bytes);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_upgraded(theirs, Upgrade::Derp, None).await });
    ours
}

/// A logged-in client at the relay's second door.
pub(crate) async fn join(relay: &Relay, number: u8) -> Client<DuplexStream> {
    Client::log_in(open(relay, 64 << 10), &node(number)).await.expect("login")
}

/// What a client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    ServerKey(NodePublic),
    ServerInfo(Vec<u8>),
    Packet(NodePublic, Vec<u8>),
    Gone(NodePublic, PeerGoneReason),
    Present(PeerPresent),
    KeepAlive,
    Ping,
    Pong([u8; 8]),
}

impl From<ServerFrame<'_>> for Event {
    fn from(frame: ServerFrame<'_>) -> Self {
        match frame {
            ServerFrame::ServerKey(key) => Self::ServerKey(key),
            ServerFrame::ServerInfo(sealed) => Self::ServerInfo(sealed.to_vec()),
            ServerFrame::RecvPacket { src, payload } => Self::Packet(src, payload.to_vec()),
            ServerFrame::PeerGone { key, reason } => Self::Gone(key, reason),
            ServerFrame::PeerPresent(peer) => Self::Present(peer),
            ServerFrame::KeepAlive => Self::KeepAlive,
            ServerFrame::Ping(_) => Self::Ping,
            ServerFrame::Pong(data) => Self::Pong(data),
        }
    }
}

pub(crate) struct Client<IO> {
    io: IO,
    input: Vec<u8>,
    pub(crate) key: NodePublic,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    /// Logs in by the relay's greeting.
    pub(crate) async fn log_in(io: IO, private: &NodePrivate) -> anyhow::Result<Self> {
        Self::log_in_as(io, private, &ClientInfo::default()).await
    }

    /// Logs in, and says that about itself.
    pub(crate) async fn log_in_as(
        io: IO,
        private: &NodePrivate,
        info: &ClientInfo,
    ) -> anyhow::Result<Self> {
        let mut client = Self { io, input: Vec::new(), key: private.public() };
        let Event::ServerKey(relay) = client.next().await? else { bail!("no greeting") };
        let login = ClientLogin::new(private, &relay)?;
        let mut hello = Vec::new();
        login.encode_client_info([1; 24], info, &mut hello);
        client.write(&hello).await?;
        let Event::ServerInfo(sealed) = client.next().await? else { bail!("no server info") };
        ensure!(login.open_server_info(&sealed)?.version == PROTOCOL_VERSION);
        Ok(client)
    }

    /// A client that has already sent its login and awaits the rest.
    pub(crate) fn new(io: IO, private: &NodePrivate) -> Self {
        Self { io, input: Vec::new(), key: private.public() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }

    pub(crate) async fn send(&mut self, dst: NodePublic, payload: &[u8]) {
        self.send_frame(&ClientFrame::SendPacket { dst, payload }).await;
    }

    pub(crate) async fn send_frame(&mut self, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.write(&bytes).await.expect("the relay reads");
    }

    /// The next frame; an error at the end of the stream.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Event> {
        timeout(PATIENCE, self.next_unbounded()).await.context("nothing comes")?
    }

    async fn next_unbounded(&mut self) -> anyhow::Result<Event> {
        loop {
            let mut rest = &self.input[..];
            if let Some(frame) = FrameReader::new().next_from_server(&mut rest)? {
                let event = frame.into();
                self.input = rest.to_vec();
                return Ok(event);
            }
            ensure!(self.io.read_buf(&mut self.input).await? > 0, "end of stream");
        }
    }

    pub(crate) async fn expect(&mut self, expected: Event) {
        assert_eq!(self.next().await.expect("a frame"), expected);
    }

    /// Waits until all that the client sent has been handled, and that nothing came of it here.
    pub(crate) async fn expect_silence(&mut self) {
        self.send_frame(&ClientFrame::Ping(*b"silence?")).await;
        self.expect(Event::Pong(*b"silence?")).await;
    }

    /// Waits until the relay closes the connection, and gives what came before.
    pub(crate) async fn closed(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(event) = timeout(PATIENCE, self.next_unbounded()).await.expect("an end") {
            events.push(event);
        }
        events
    }
}
