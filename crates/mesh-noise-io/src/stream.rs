//! `AsyncRead` and `AsyncWrite` over the record layer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use mesh_noise::{Opener, RECORD_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX, Sealer, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// Most bytes asked of the inner stream at once: four full records.
const READ_BYTES: usize = 16 * 1024;

/// As many are asked for first when nothing is known to wait: most often there is nothing, and this much may
/// lie on the stack.
const PROBE_BYTES: usize = 4 * 1024;

/// Most bytes of plaintext taken by one write: sixteen full records.
const WRITE_BYTES_MAX: usize = 16 * RECORD_PLAINTEXT_BYTES_MAX;

/// What a record adds to its plaintext.
const RECORD_OVERHEAD_BYTES: usize = RECORD_BYTES_MAX - RECORD_PLAINTEXT_BYTES_MAX;

/// While this many sealed bytes wait for the inner stream, writes wait as well.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// An open Noise channel over `IO`: plaintext on this side, records on the inner one.
///
/// What is written leaves on flush, or once 64 KiB wait: several writes share records, and many records go in
/// one write of the inner stream. A write that nobody flushes is never sent. All operations are safe to cancel.
/// Buffers are bounded, and an idle stream holds none. Each error is for good.
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
    /// Records that wait for the inner stream; the last one may be open.
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
        if self.incoming.capacity() == 0 {
            // Even when it is empty it may share the buffer of what was read last.
            self.incoming = BytesMut::new();
            return self.poll_probe(cx);
        }
        self.incoming.reserve(READ_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.incoming);
        if read.is_pending() && self.incoming.is_empty() {
            // Most streams wait most of the time: those hold no buffer.
            self.incoming = BytesMut::new();
        }
        read
    }

    fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut probe = [MaybeUninit::uninit(); PROBE_BYTES];
        let mut probe = ReadBuf::uninit(&mut probe);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut probe))?;
        self.incoming.extend_from_slice(probe.filled());
        Poll::Ready(Ok(probe.filled().len()))
    }
}

impl<IO: AsyncWrite + Unpin> NoiseStream<IO> {
    /// Hands sealed bytes to the inner stream until at most `remaining` wait.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>, remaining: usize) -> Poll<io::Result<()>> {
        if self.outgoing.len() > remaining {
            self.sealer.finish(&mut self.outgoing).map_err(invalid_data)?;
        }
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

    fn poll_append<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx, OUTGOING_BYTES_MAX))?;
        let bytes = pieces.clone().map(<[u8]>::len).sum::<usize>().min(WRITE_BYTES_MAX);
        let records = bytes.div_ceil(RECORD_PLAINTEXT_BYTES_MAX);
        self.outgoing.reserve(bytes + records * RECORD_OVERHEAD_BYTES);
        let mut room = bytes;
        for piece in pieces {
            let piece = &piece[..piece.len().min(room)];
            room -= piece.len();
            self.sealer.append(piece, &mut self.outgoing).map_err(invalid_data)?;
        }
        Poll::Ready(Ok(bytes))
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
        self.poll_append(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_append(cx, bufs.iter().map(|buf| &**buf))
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
