//! One client of a relay: its socket, and how far it has come.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mesh_derp::{
    ClientInfo, ClientLogin, FrameBuffer, FrameError, LoginError, NONCE_BYTES, PROTOCOL_VERSION,
    ServerFrame,
};
use mesh_keys::{NodePrivate, NodePublic};
use mesh_tls::{Handshake, HandshakeError, RECORD_BYTES_MAX, RecordError};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustls::ClientConfig;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls_pki_types::ServerName;
use thiserror::Error;

use crate::mischief::{Mischief, Step};
use crate::poller::{Interest, Lane};

/// Bytes that a read asks for.
const READ_BYTES: usize = 64 << 10;

/// Bytes of the buffer into which all clients read, one after the other.
pub(crate) const SCRATCH_BYTES: usize = READ_BYTES + RECORD_BYTES_MAX;

/// Bytes that may wait for a socket until an open loop keeps its packets: about as many packets as stock clients let wait.
pub(crate) const UNSENT_BYTES_MAX: usize = 64 << 10;

/// Bytes that the kernel keeps for a client until the relay takes them: what it would find right for a path of some 10 ms and
/// 100 Mbit/s. On loopback it keeps twenty times that, and the relay would pay for our backlog in its caches.
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// How clients of all big systems control congestion. BBR, where it is this machine's default, sends by timers, and on loopback
/// those and all they send are the relay's processor's work.
const CONGESTION_CONTROL: &str = "cubic";

/// Longest answer to the upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Where a relay is, and as whom it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    pub(crate) host: ServerName<'static>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Why a client is not connected any more.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// The relay hung up.
    #[error("relay hung up")]
    Ended,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] HandshakeError),
    /// TLS failed after the handshake.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The relay does not upgrade to DERP.
    #[error("relay answered {0:?}")]
    Answer(String),
    /// It sent bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It did not log us in.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// It sent another frame than that of its next step.
    #[error("relay is out of step in the login")]
    OutOfStep,
    /// No randomness.
    #[error("no randomness")]
    Random,
}

type Records = mesh_tls::Records<ClientConnectionData>;

enum Stage {
    Tls(Box<Handshake<UnbufferedClientConnection>>),
    Upgrade(Records),
    Greeting(Records),
    Info(Records, Box<ClientLogin>),
    Ready(Records),
    Closed,
}

/// A client.
pub(crate) struct Client {
    pub(crate) key: NodePublic,
    pub(crate) lane: Lane,
    pub(crate) began_at: u64,
    /// When it was logged in.
    pub(crate) ready_at: Option<u64>,
    pub(crate) socket: TcpStream,
    pub(crate) interest: Interest,
    /// Whether what the relay sends is read. Changes take effect with [`Self::wanted`].
    pub(crate) reads: bool,
    /// Which rule it breaks.
    pub(crate) mischief: Option<Mischief>,
    private: NodePrivate,
    host: String,
    stage: Stage,
    /// The beginning of a record whose rest has not come.
    incoming: Vec<u8>,
    /// The answer to the upgrade as far as it has come.
    head: Vec<u8>,
    frames: FrameBuffer,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that have been written.
    written: usize,
}

impl Client {
    /// Begins to connect.
    pub(crate) fn connect(
        relay: &Relay,
        private: NodePrivate,
        lane: Lane,
        mischief: Option<Mischief>,
        now: u64,
    ) -> Result<Self, ClientError> {
        let mut handshake = Handshake::client(Arc::clone(&relay.tls), relay.host.clone())?;
        let mut outgoing = Vec::new();
        match instead(mischief, Step::Hello) {
            Some(bytes) => outgoing = bytes,
            None => {
                handshake.advance(&mut Vec::new(), &mut outgoing, &mut Vec::new())?;
            }
        }
        Ok(Self {
            key: private.public(),
            lane,
            began_at: now,
            ready_at: None,
            socket: dial(relay.addr)?,
            interest: Interest { read: true, write: true },
            reads: true,
            mischief,
            private,
            host: relay.host.to_str().into_owned(),
            stage: Stage::Tls(Box::new(handshake)),
            incoming: Vec::new(),
            head: Vec::new(),
            frames: FrameBuffer::default(),
            outgoing,
            written: 0,
        })
    }

    /// The records to seal frames into and where they go, once logged in.
    pub(crate) fn writer(&mut self) -> Option<(&mut Records, &mut Vec<u8>)> {
        match &mut self.stage {
            Stage::Ready(records) => Some((records, &mut self.outgoing)),
            Stage::Tls(_)
            | Stage::Upgrade(_)
            | Stage::Greeting(_)
            | Stage::Info(..)
            | Stage::Closed => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// What the socket should be watched for.
    pub(crate) fn wanted(&self) -> Interest {
        Interest { read: self.reads, write: self.unsent_bytes() > 0 }
    }

    /// Hangs up without a word.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
        // The other side learns it at once, however many copies of the socket there are.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        (self.outgoing, self.incoming) = (Vec::new(), Vec::new());
        self.written = 0;
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), ClientError> {
        while self.unsent_bytes() > 0 {
            match self.socket.write(&self.outgoing[self.written..]) {
                Ok(0) => return Err(ClientError::Ended),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once and hands the frames that came to `handle`, with the time of the read by `clock`. Says whether there may be
    /// more to read.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        clock: impl Fn() -> u64,
        mut handle: impl FnMut(u64, &ServerFrame<'_>),
    ) -> Result<bool, ClientError> {
        let kept = self.incoming.len();
        let bytes = match self.socket.read(&mut scratch[kept..kept + READ_BYTES]) {
            Ok(0) => return Err(ClientError::Ended),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let now = clock();
        scratch[..kept].copy_from_slice(&self.incoming);
        let (input, mut taken) = (&mut scratch[..kept + bytes], 0);
        if let Stage::Tls(_) = self.stage {
            self.incoming.clear();
            return self.shake_hands(input).map(|()| false);
        }
        loop {
            let data = match &mut self.stage {
                Stage::Ready(records) => {
                    let Some(data) = records.open(input, &mut taken)? else { break };
                    self.frames.take_from_server(data, |frame| {
                        handle(now, frame);
                        Ok::<_, FrameError>(())
                    })?;
                    continue;
                }
                Stage::Upgrade(records) | Stage::Greeting(records) | Stage::Info(records, _) => {
                    records.open(input, &mut taken)?
                }
                Stage::Tls(_) | Stage::Closed => None,
            };
            let Some(data) = data else { break };
            self.log_in(data, now)?;
        }
        self.incoming.clear();
        self.incoming.extend_from_slice(&input[taken..]);
        Ok(bytes == READ_BYTES)
    }

    /// Goes on with the handshake; at its end asks for the upgrade.
    fn shake_hands(&mut self, input: &[u8]) -> Result<(), ClientError> {
        let Stage::Tls(handshake) = &mut self.stage else { return Ok(()) };
        self.incoming.extend_from_slice(input);
        if !handshake.advance(&mut self.incoming, &mut self.outgoing, &mut Vec::new())? {
            return Ok(());
        }
        let Stage::Tls(handshake) = mem::replace(&mut self.stage, Stage::Closed) else {
            return Ok(());
        };
        let mut records = handshake.finish()?;
        let host = &self.host;
        let request = instead(self.mischief, Step::Request).unwrap_or_else(|| {
            format!(
                "GET /derp HTTP/1.1\r\nHost: {host}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
            )
            .into_bytes()
        });
        records.seal(&request, &mut self.outgoing)?;
        self.stage = Stage::Upgrade(records);
        Ok(())
    }

    /// Takes data that came before the login was over.
    fn log_in(&mut self, data: &[u8], now: u64) -> Result<(), ClientError> {
        let mut data = data.to_vec();
        if matches!(self.stage, Stage::Upgrade(_)) {
            self.head.append(&mut data);
            let Some(end) = end_of_head(&self.head)? else { return Ok(()) };
            data = self.head.split_off(end);
            self.head = Vec::new();
            if let Stage::Upgrade(records) = mem::replace(&mut self.stage, Stage::Closed) {
                self.stage = Stage::Greeting(records);
            }
        }
        let mut frames = mem::take(&mut self.frames);
        let taken = frames.take_from_server(&data, |frame| self.take_step(frame, now));
        self.frames = frames;
        taken
    }

    fn take_step(&mut self, frame: &ServerFrame<'_>, now: u64) -> Result<(), ClientError> {
        match (mem::replace(&mut self.stage, Stage::Closed), frame) {
            (Stage::Greeting(mut records), ServerFrame::ServerKey(relay)) => {
                let login = Box::new(ClientLogin::new(&self.private, relay)?);
                let info = ClientInfo {
                    version: PROTOCOL_VERSION,
                    can_ack_pings: true,
                    ..ClientInfo::default()
                };
                let nonce = random_nonce()?;
                let junk = instead(self.mischief, Step::Login);
                records.seal_with(&mut self.outgoing, |out| match junk {
                    Some(mut junk) => out.append(&mut junk),
                    None => login.encode_client_info(nonce, &info, out),
                })?;
                self.stage = Stage::Info(records, login);
                Ok(())
            }
            (Stage::Info(mut records, login), ServerFrame::ServerInfo(sealed)) => {
                login.open_server_info(sealed)?;
                if let Some(junk) = instead(self.mischief, Step::Frames) {
                    records.seal(&junk, &mut self.outgoing)?;
                }
                self.stage = Stage::Ready(records);
                self.ready_at = Some(now);
                Ok(())
            }
            // What comes in the same record as the end of the login; only keepalives can.
            (stage @ Stage::Ready(_), _) => {
                self.stage = stage;
                Ok(())
            }
            _ => Err(ClientError::OutOfStep),
        }
    }
}

fn instead(mischief: Option<Mischief>, step: Step) -> Option<Vec<u8>> {
    mischief.and_then(|mischief| mischief.instead_of(step))
}

/// Begins to connect a socket that never blocks.
fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
    // Where the kernel does not have it, its default will do.
    let _ = sockopt::set_tcp_congestion(&socket, CONGESTION_CONTROL);
    match rustix::net::connect(&socket, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Where the head of the answer ends, once all of it is there; an error if it is not the one to an upgrade.
fn end_of_head(head: &[u8]) -> Result<Option<usize>, ClientError> {
    let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    if end.is_none() && head.len() < HEAD_BYTES_MAX {
        return Ok(None);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(ClientError::Answer(String::from_utf8_lossy(line).into_owned()));
    }
    Ok(end.map(|end| end + 4))
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], ClientError> {
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| ClientError::Random)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_ends_behind_its_empty_line() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n";
        assert_eq!(end_of_head(head).unwrap(), Some(head.len()));
        assert_eq!(end_of_head(&head[..head.len() - 1]).unwrap(), None);
        let refused = end_of_head(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err();
        assert_eq!(refused.to_string(), r#"relay answered "HTTP/1.1 404 Not Found""#);
    }
}
