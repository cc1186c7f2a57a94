//! A logged-in connection until its end: a reader and a writer, both within the task of the region.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mesh_derp::{FrameError, FrameReader, PING_BYTES, PeerGoneReason, Rate, ServerFrame};
use mesh_keys::NodePublic;
use mesh_wire::DerpRegionId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connect::ConnectError;
use crate::region_client::{Event, Shared};

/// How long a relay may send no frame until its connection is dead. Relays send one every 65 seconds at least.
///
/// Source: tailscale `derp/derp_client.go`, `recvTimeout`.
pub const SILENCE_MAX: Duration = Duration::from_mins(2);

/// How long a write may make no progress until the connection is dead.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a buffer to read into; one packet more than that at the most.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

/// Bytes that a read asks for at least: a TLS record holds no more.
const READ_BYTES: usize = 16 << 10;

/// Why a region is not connected.
#[derive(Debug, Error)]
pub enum DisconnectCause {
    /// The region has no relay, or only such that serve STUN alone.
    #[error("region has no relay to connect to")]
    NoNode,
    /// No relay of the region logged us in.
    #[error("cannot connect to relay {node}")]
    Connect {
        /// The name of the first relay, which is the preferred one.
        node: String,
        /// Why it did not; the other relays may have had other reasons.
        #[source]
        source: ConnectError,
    },
    /// The relay hung up, or the network failed.
    #[error("connection to the relay ended")]
    Io(#[source] io::Error),
    /// The relay sent what cannot be read on.
    #[error("relay does not keep to the protocol")]
    Frame(#[from] FrameError),
    /// [`SILENCE_MAX`] is over.
    #[error("no frame from the relay in {} seconds", SILENCE_MAX.as_secs())]
    Silence,
    /// [`WRITE_TIMEOUT`] is over.
    #[error("relay takes in nothing")]
    WriteTimeout,
}

/// A connection on which a relay has logged us in.
pub(crate) struct Link<IO> {
    pub(crate) io: IO,
    /// What was read already and comes after the login.
    pub(crate) input: BytesMut,
    /// What the relay will take from us, if it says.
    pub(crate) rate: Option<Rate>,
}

/// Sends what waits and tells what arrives, until the connection ends.
pub(crate) async fn serve<IO: AsyncRead + AsyncWrite>(
    Link { io, input, rate: _ }: Link<IO>,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
    region: DerpRegionId,
) -> DisconnectCause {
    let (mut reader, mut writer) = tokio::io::split(io);
    let Err(cause) = tokio::select! {
        biased;
        // First, for it gives way after each write, while a reader in a flood does not.
        end = write(&mut writer, shared) => end,
        end = read(&mut reader, input, shared, events, region) => end,
    };
    cause
}

async fn write<W: AsyncWrite + Unpin>(
    io: &mut W,
    shared: &Shared,
) -> Result<Infallible, DisconnectCause> {
    let mut out = Vec::new();
    loop {
        shared.update(|outbox| outbox.poll_output(&mut out, Instant::now().into_std()));
        if out.is_empty() {
            shared.woken().await;
        } else {
            write_all(io, &out).await?;
            out.clear();
            yield_now().await;
        }
    }
}

/// Writes and flushes all of `bytes`, as long as it goes on.
async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    mut bytes: &[u8],
) -> Result<(), DisconnectCause> {
    while !bytes.is_empty() {
        let written = timeout(WRITE_TIMEOUT, io.write(bytes)).await;
        match written.map_err(|_| DisconnectCause::WriteTimeout)?.map_err(DisconnectCause::Io)? {
            0 => return Err(DisconnectCause::Io(io::ErrorKind::WriteZero.into())),
            written => bytes = &bytes[written..],
        }
    }
    let flushed = timeout(WRITE_TIMEOUT, io.flush()).await;
    flushed.map_err(|_| DisconnectCause::WriteTimeout)?.map_err(DisconnectCause::Io)
}

async fn read<R: AsyncRead + Unpin>(
    io: &mut R,
    mut input: BytesMut,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
    region: DerpRegionId,
) -> Result<Infallible, DisconnectCause> {
    let mut frames = FrameReader::new();
    let mut deadline = Instant::now() + SILENCE_MAX;
    loop {
        while let Some((incoming, mut bytes)) = take_frame(&mut frames, &mut input, Incoming::of)? {
            let event = match incoming {
                Incoming::Packet { src, payload_bytes } => {
                    bytes.advance(bytes.len() - payload_bytes);
                    Some(Event::Received { region, src, packet: bytes.freeze() })
                }
                Incoming::PeerGone { key, reason } => Some(Event::PeerGone { region, key, reason }),
                Incoming::Ping(data) => {
                    shared.update(|outbox| outbox.push_pong(data));
                    None
                }
                Incoming::Sign => None,
            };
            if let Some(event) = event {
                // If nobody listens, the task ends of that.
                let _ = events.send(event).await;
            }
            deadline = Instant::now() + SILENCE_MAX;
        }
        let read = timeout_at(deadline, read_more(io, &mut input)).await;
        read.map_err(|_| DisconnectCause::Silence)?.map_err(DisconnectCause::Io)?;
    }
}

/// A frame of a relay, without its bytes.
enum Incoming {
    /// The packet is what the frame ends with.
    Packet {
        src: NodePublic,
        payload_bytes: usize,
    },
    PeerGone {
        key: NodePublic,
        reason: PeerGoneReason,
    },
    Ping([u8; PING_BYTES]),
    /// A sign of life, and nothing else.
    Sign,
}

impl Incoming {
    fn of(frame: ServerFrame<'_>) -> Self {
        match frame {
            ServerFrame::RecvPacket { src, payload } => {
                Self::Packet { src, payload_bytes: payload.len() }
            }
            ServerFrame::PeerGone { key, reason } => Self::PeerGone { key, reason },
            ServerFrame::Ping(data) => Self::Ping(data),
            ServerFrame::KeepAlive
            | ServerFrame::Pong(_)
            | ServerFrame::PeerPresent(_)
            | ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_) => Self::Sign,
        }
    }
}

/// Takes the next frame off the front of `input` once it is there: what `convert` makes of it, and its bytes
/// behind those of skipped ones.
pub(crate) fn take_frame<T>(
    frames: &mut FrameReader,
    input: &mut BytesMut,
    convert: impl FnOnce(ServerFrame<'_>) -> T,
) -> Result<Option<(T, BytesMut)>, FrameError> {
    let mut rest = &input[..];
    let converted = frames.next_from_server(&mut rest)?.map(convert);
    let taken = input.len() - rest.len();
    let Some(converted) = converted else {
        input.advance(taken);
        return Ok(None);
    };
    Ok(Some((converted, input.split_to(taken))))
}

/// Waits for more bytes behind `input`.
pub(crate) async fn read_more<R: AsyncRead + Unpin>(
    io: &mut R,
    input: &mut BytesMut,
) -> io::Result<()> {
    input.reserve(READ_BYTES);
    match io.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
