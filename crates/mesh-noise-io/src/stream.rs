//! `AsyncRead` and `AsyncWrite` over the record layer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use mesh_noise::{Opener, RECORD_PLAINTEXT_BYTES_MAX, Sealer, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// Most bytes asked of the inner stream at once: four full records.
const READ_BYTES: usize = 16 * 1024;

/// Most bytes of plaintext taken by one write: sixteen full records.
const WRITE_BYTES_MAX: usize = 16 * RECORD_PLAINTEXT_BYTES_MAX;

/// While this many sealed bytes wait for the inner stream, writes wait as well.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// An open Noise channel over `IO`: plaintext on this side, records on the inner one.
///
/// Writes are sealed at once but leave on flush, or once 64 KiB wait, so that many records go in one write:
/// a write that nobody flushes is never sent. All operations are safe to cancel. Buffers are bounded, and
/// an idle stream holds none. Each error is for good.
///
/// The end of the inner stream is the end of this one; inside a record it is an
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). A record that does not open is
/// [`InvalidData`](io::ErrorKind::InvalidData).
#[derive(Debug)]
pub struct NoiseStream<IO> {
    io: IO,
    sealer: Sealer,
    opener: Opener,
    /// Records as they came, the last one perhaps incomplete.
    incoming: BytesMut,
    /// What the last opened record still holds for the reader.
    plaintext: BytesMut,
    /// Records that wait for the inner stream.
    outgoing: BytesMut,
}

impl<IO> NoiseStream<IO> {
    /// Continues `io` where the handshake ended.
    pub fn new(io: IO, transport: Transport) -> Self {
        Self::answering(io, &[], transport)
    }

    /// Continues `io` on the server's side: `response`, the answer to the handshake, leaves in the same
    /// write as the first records.
    pub fn answering(io: IO, response: &[u8], transport: Transport) -> Self {
        Self {
            io,
            sealer: transport.sealer,
            opener: transport.opener,
            incoming: BytesMut::new(),
            plaintext: BytesMut::new(),
            outgoing: BytesMut::from(response),
        }
    }
}

impl<IO: AsyncRead + Unpin> NoiseStream<IO> {
    /// Waits for a record that holds something. Leaves `plaintext` empty at the end of the stream.
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.plaintext.is_empty() {
            if let Some(plaintext) = self.opener.open(&mut self.incoming).map_err(invalid_data)? {
                self.plaintext = plaintext;
            } else if ready!(self.poll_incoming(cx))? == 0 {
                let whole = self.incoming.is_empty();
                let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(if whole { Ok(()) } else { Err(truncated()) });
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.incoming.reserve(READ_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.incoming);
        if read.is_pending() && self.incoming.is_empty() {
            // Most streams wait most of the time: those hold no buffer.
            self.incoming = BytesMut::new();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> NoiseStream<IO> {
    /// Hands sealed bytes to the inner stream until at most `remaining` wait.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>, remaining: usize) -> Poll<io::Result<()>> {
        while self.outgoing.len() > remaining {
            if ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.outgoing))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        if self.outgoing.is_empty() {
            self.outgoing = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_seal<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx, OUTGOING_BYTES_MAX))?;
        let mut taken = 0;
        let pieces = pieces.map(|piece| {
            let piece = &piece[..piece.len().min(WRITE_BYTES_MAX - taken)];
            taken += piece.len();
            piece
        });
        self.sealer.seal_into(pieces, &mut self.outgoing).map_err(invalid_data)?;
        Poll::Ready(Ok(taken))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for NoiseStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_plaintext(cx))?;
        let length = self.plaintext.len().min(buf.remaining());
        buf.put_slice(&self.plaintext[..length]);
        self.plaintext.advance(length);
        if self.plaintext.is_empty() {
            // Lets go of the read buffer that the record lay in.
            self.plaintext = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for NoiseStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_seal(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_seal(cx, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(cx, 0))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes the sending direction after all that was written; reading goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(cx, 0))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn invalid_data(error: mesh_noise::RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
