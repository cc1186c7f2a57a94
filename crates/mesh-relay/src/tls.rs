//! TLS as a link: records are opened where the socket was read to, and sealed where it is written from.
//!
//! Both buffers are lent by the thread and go back as soon as they are empty, so that a connection that waits
//! holds none.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use mesh_tls::{Handshake, HandshakeError, RECORD_BYTES_MAX, RecordError, Records};
use rustls::ServerConfig;
use rustls::server::ServerConnectionData;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::link::Link;
use crate::workers::charge;

/// Bytes that are read at once: some forty packets.
const READ_BYTES: usize = 64 << 10;

/// Bytes that a read within the handshake asks for.
const HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// Bytes of a handshake that may wait for their rest: one record, and what is read with it.
const HANDSHAKE_BYTES_MAX: usize = RECORD_BYTES_MAX + HANDSHAKE_READ_BYTES;

/// Bytes that are sealed before the socket is asked to take them.
const WRITE_BYTES: usize = 64 << 10;

/// Bytes that are kept for the beginning of a record from one read to the next: most records fit in.
const KEPT_BYTES_MAX: usize = 2 << 10;

thread_local! {
    /// Where the next reader of this thread reads to.
    static READ: RefCell<Vec<u8>> = RefCell::default();
    /// Where the next writer of this thread seals.
    static WRITE: RefCell<Vec<u8>> = RefCell::default();
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Tls<IO> {
    io: IO,
    /// Boxed, for it is large and moves from step to step until the login is over.
    records: Box<Records<ServerConnectionData>>,
    /// The beginning of a record: shorter than [`RECORD_BYTES_MAX`].
    partial: Vec<u8>,
    /// What was opened and not asked for yet.
    opened: BytesMut,
    /// Records that wait for the socket.
    sealed: Vec<u8>,
    /// Bytes of them that are written.
    written: usize,
    /// Bytes that were written all in all.
    sent_bytes: u64,
    is_closing: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Tls<IO> {
    /// Makes the handshake.
    pub(crate) async fn accept(mut io: IO, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut handshake = Handshake::server(config).map_err(no_handshake)?;
        let (mut incoming, mut outgoing, mut early) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let advanced = handshake.advance(&mut incoming, &mut outgoing, &mut early);
            io.write_all(&outgoing).await?;
            outgoing.clear();
            let is_over = advanced.map_err(no_handshake)?;
            // What comes behind the handshake is the beginning of one record.
            let bytes_max = if is_over { RECORD_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
            if incoming.len() >= bytes_max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "record without end"));
            }
            if is_over {
                break;
            }
            incoming.reserve(HANDSHAKE_READ_BYTES);
            if io.read_buf(&mut incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self {
            io,
            records: Box::new(handshake.finish().map_err(no_handshake)?),
            partial: incoming,
            opened: early.as_slice().into(),
            sealed: Vec::new(),
            written: 0,
            sent_bytes: 0,
            is_closing: false,
        })
    }

    /// Reads once, and hands on what the records that have come hold. Returns how many bytes were read, though they may
    /// hold nothing; none at the end.
    fn poll_open<E: From<io::Error>>(
        &mut self,
        room: &mut Vec<u8>,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        if self.records.has_ended() {
            return Poll::Ready(Ok(0));
        }
        room.resize(READ_BYTES + RECORD_BYTES_MAX, 0);
        let kept = self.partial.len();
        let mut buffer = ReadBuf::new(&mut room[kept..kept + READ_BYTES]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        room[..kept].copy_from_slice(&self.partial);
        let (input, mut taken) = (&mut room[..kept + read], 0);
        while let Some(data) = self.records.open(input, &mut taken).map_err(no_record)? {
            take(data)?;
        }
        self.partial.clear();
        self.partial.shrink_to(KEPT_BYTES_MAX);
        self.partial.extend_from_slice(&input[taken..]);
        Poll::Ready(Ok(read))
    }

    /// Writes the records that wait.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.sealed.len() {
            let rest = &self.sealed[self.written..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.sent_bytes += mem::take(&mut self.written) as u64;
        self.sealed.clear();
        if self.sealed.capacity() > 0 {
            WRITE.set(mem::take(&mut self.sealed));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for Tls<IO> {
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        if !self.opened.is_empty() {
            let opened = mem::take(&mut self.opened);
            take(&opened)?;
            return Poll::Ready(Ok(opened.len()));
        }
        let mut room = READ.take();
        let received = self.poll_open(&mut room, cx, take);
        READ.set(room);
        received
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes + self.written as u64
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Tls<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.opened.is_empty() {
            let mut opened = BytesMut::new();
            let received = self.poll_receive(cx, |data| {
                opened.extend_from_slice(data);
                Ok::<_, io::Error>(())
            });
            self.opened = opened;
            let read = ready!(received)?;
            charge(read as u64);
            if read > 0 && self.opened.is_empty() {
                // Others get their turn: whoever sends nothing but headers could go on for ever.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let length = self.opened.len().min(into.remaining());
        into.put_slice(&self.opened[..length]);
        self.opened.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tls<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sealed(cx))?;
        let data = &data[..data.len().min(WRITE_BYTES)];
        let mut sealed = WRITE.take();
        self.records.seal(data, &mut sealed).map_err(no_record)?;
        self.sealed = sealed;
        // It is taken all the same if the socket has no room for it now.
        let _ = self.poll_sealed(cx)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sealed(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing {
            self.is_closing = true;
            let Self { records, sealed, .. } = &mut *self;
            if sealed.capacity() == 0 {
                *sealed = WRITE.take();
            }
            records.seal_close(sealed);
        }
        ready!(self.poll_sealed(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What is wrong with a handshake is the other side's data.
fn no_handshake(error: HandshakeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn no_record(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
