//! A WebSocket as a link: a stream of bytes in the binary messages of another link.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use mesh_derp::websocket::{
    CLOSE_NORMAL, Event, Frame, MESSAGE_BYTES_MAX, WebSocketError, WebSocketReader,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::Link;

/// Room for what is unmasked at once.
const ROOM_BYTES: usize = 4 << 10;

/// A WebSocket after its handshake.
#[derive(Debug)]
pub(crate) struct WebSocket<L> {
    link: L,
    inbound: Inbound,
    outbound: Outbound,
}

/// What the client sends.
#[derive(Debug, Default)]
struct Inbound {
    reader: WebSocketReader,
    /// The last ping that has not been answered. Of several, the last is to be.
    ping: Option<Vec<u8>>,
    /// Why nothing more is read: the code that the client has closed with, or what is wrong.
    end: Option<Result<u16, WebSocketError>>,
}

impl Inbound {
    /// Hands on what the next bytes of the link carry. What comes behind the end is passed over.
    fn take<E>(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut room = [0; ROOM_BYTES];
        while self.end.is_none() {
            match self.reader.next(&mut input, &mut room) {
                Ok(Some(Event::Data(bytes))) => take(bytes)?,
                Ok(Some(Event::Ping(data))) => self.ping = Some(data.to_vec()),
                Ok(Some(Event::Close(code))) => self.end = Some(Ok(code)),
                Ok(None) => break,
                Err(error) => self.end = Some(Err(error)),
            }
        }
        Ok(())
    }

    /// Whether the client has closed the stream; an error if it has broken it.
    fn has_ended(&self) -> io::Result<bool> {
        match self.end {
            Some(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            end => Ok(end.is_some()),
        }
    }

    fn close_code(&self) -> u16 {
        self.end.map_or(CLOSE_NORMAL, |end| end.unwrap_or_else(WebSocketError::close_code))
    }
}

/// What is sent to the client.
#[derive(Debug, Default)]
struct Outbound {
    /// What waits for the link: the answer to the upgrade, a pong or a message, and a close behind it.
    frames: Vec<u8>,
    /// How many bytes of them are written.
    written: usize,
    is_closing: bool,
}

impl Outbound {
    fn took(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.frames.len() {
            self.frames = Vec::new();
            self.written = 0;
        }
    }

    /// Answers a ping if nothing waits: who pings and does not read is owed one pong.
    fn pong(&mut self, ping: &mut Option<Vec<u8>>) {
        if self.frames.is_empty()
            && !self.is_closing
            && let Some(data) = ping.take()
        {
            Frame::Pong(&data).encode(&mut self.frames);
        }
    }
}

impl<L: Link> WebSocket<L> {
    /// A WebSocket whose handshake ends with `out`, which is still to be written. Returns the bytes of the stream that
    /// came with `input`, behind the client's request.
    pub(crate) fn new(link: L, input: &[u8], out: Vec<u8>) -> (Self, BytesMut) {
        let mut inbound = Inbound::default();
        let mut came = BytesMut::new();
        let Ok(()) = inbound.take(input, |bytes| {
            came.extend_from_slice(bytes);
            Ok::<_, Infallible>(())
        });
        let outbound = Outbound { frames: out, ..Outbound::default() };
        (Self { link, inbound, outbound }, came)
    }

    /// Answers the last ping, at once if that can be written, else with what is written next.
    fn answer_ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.inbound.ping.is_some() && self.poll_frames(cx)?.is_ready() {
            let _ = Pin::new(&mut self.link).poll_flush(cx)?;
        }
        Ok(())
    }

    /// Writes the frames that wait, and the answer to a ping.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { link, inbound, outbound } = self;
        loop {
            outbound.pong(&mut inbound.ping);
            if outbound.frames.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let rest = &outbound.frames[outbound.written..];
            match ready!(Pin::new(&mut *link).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outbound.took(written),
            }
        }
    }
}

impl<L: Link> Link for WebSocket<L> {
    /// Counts all that comes, with masks and headers and what carries nothing.
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        if self.inbound.has_ended()? {
            return Poll::Ready(Ok(0));
        }
        let Self { link, inbound, .. } = self;
        let received = ready!(link.poll_receive(cx, |chunk| inbound.take(chunk, &mut take)))?;
        self.answer_ping(cx)?;
        Poll::Ready(Ok(received))
    }

    fn sent_bytes(&self) -> u64 {
        self.link.sent_bytes()
    }
}

impl<L: Link> AsyncRead for WebSocket<L> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.inbound.has_ended()? {
            return Poll::Ready(Ok(()));
        }
        let before = into.remaining();
        let mut masked = [0; ROOM_BYTES];
        // What is unmasked is no longer than what was masked.
        let room = masked.len().min(before);
        let mut masked = ReadBuf::new(&mut masked[..room]);
        ready!(Pin::new(&mut this.link).poll_read(cx, &mut masked))?;
        let Ok(()) = this.inbound.take(masked.filled(), |bytes| {
            into.put_slice(bytes);
            Ok::<_, Infallible>(())
        });
        this.answer_ping(cx)?;
        if !masked.filled().is_empty() && into.remaining() == before {
            // Others get their turn: whoever sends nothing but headers could go on for ever.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<L: Link> AsyncWrite for WebSocket<L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_frames(cx))?;
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        let frames = &mut self.outbound.frames;
        Frame::Data(bytes.len()).encode(frames);
        frames.extend_from_slice(bytes);
        // The message is taken all the same if the link has no room for it now.
        let _ = self.poll_frames(cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frames(cx))?;
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inbound, outbound, .. } = &mut *self;
        if !outbound.is_closing {
            Frame::Close(inbound.close_code()).encode(&mut outbound.frames);
            outbound.is_closing = true;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
