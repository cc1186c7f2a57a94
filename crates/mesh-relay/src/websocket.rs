//! A WebSocket as a link: a stream of bytes in the binary messages of another link.

use std::convert::Infallible;
use std::io::{self, IoSlice};
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
    /// Frames of no payload, pongs, and the header of the message that is being written last: all of them go before
    /// the message's bytes.
    head: Vec<u8>,
    /// How many bytes of it are written.
    head_written: usize,
    /// Bytes that the message lacks.
    message_left: usize,
    is_closing: bool,
}

impl Outbound {
    fn rest_of_head(&self) -> &[u8] {
        &self.head[self.head_written..]
    }

    fn head_took(&mut self, bytes: usize) {
        self.head_written += bytes;
        if self.head_written == self.head.len() {
            self.head = Vec::new();
            self.head_written = 0;
        }
    }

    /// Puts the answer to a ping before what comes next, between two messages.
    fn pong(&mut self, ping: &mut Option<Vec<u8>>) {
        if self.message_left == 0
            && !self.is_closing
            && let Some(data) = ping.take()
        {
            Frame::Pong(&data).encode(&mut self.head);
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
        let outbound = Outbound { head: out, ..Outbound::default() };
        (Self { link, inbound, outbound }, came)
    }

    /// Answers the last ping, at once if that can be written, else with what is written next.
    fn answer_ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.inbound.ping.is_some() && self.poll_head(cx)?.is_ready() {
            let _ = Pin::new(&mut self.link).poll_flush(cx)?;
        }
        Ok(())
    }

    /// Writes what goes before the next message.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { link, inbound, outbound } = self;
        outbound.pong(&mut inbound.ping);
        // The header of a message goes with its first bytes.
        while outbound.message_left == 0 && !outbound.head.is_empty() {
            match ready!(Pin::new(&mut *link).poll_write(cx, outbound.rest_of_head()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outbound.head_took(written),
            }
        }
        Poll::Ready(Ok(()))
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
        let before = into.remaining();
        let mut masked = [0; ROOM_BYTES];
        while into.remaining() == before && !this.inbound.has_ended()? {
            // What is unmasked is no longer than what was masked.
            let room = masked.len().min(before);
            let mut masked = ReadBuf::new(&mut masked[..room]);
            ready!(Pin::new(&mut this.link).poll_read(cx, &mut masked))?;
            if masked.filled().is_empty() {
                break;
            }
            let Ok(()) = this.inbound.take(masked.filled(), |bytes| {
                into.put_slice(bytes);
                Ok::<_, Infallible>(())
            });
            this.answer_ping(cx)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Who begins to write some bytes has to go on with them: their message is announced.
impl<L: Link> AsyncWrite for WebSocket<L> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { link, inbound, outbound } = self.get_mut();
        outbound.pong(&mut inbound.ping);
        if outbound.message_left == 0 && !bytes.is_empty() {
            outbound.message_left = bytes.len().min(MESSAGE_BYTES_MAX);
            Frame::Data(outbound.message_left).encode(&mut outbound.head);
        }
        let bytes = &bytes[..outbound.message_left.min(bytes.len())];
        loop {
            let head = outbound.rest_of_head();
            let head_bytes = head.len();
            let parts = [IoSlice::new(head), IoSlice::new(bytes)];
            let parts = if head.is_empty() { &parts[1..] } else { &parts };
            let written = ready!(Pin::new(&mut *link).poll_write_vectored(cx, parts))?;
            outbound.head_took(written.min(head_bytes));
            let written_bytes = written.saturating_sub(head_bytes);
            outbound.message_left -= written_bytes;
            if written_bytes > 0 || written == 0 || bytes.is_empty() {
                return Poll::Ready(Ok(written_bytes));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(cx))?;
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inbound, outbound, .. } = &mut *self;
        // Within a message there is no room for a close.
        if outbound.message_left == 0 && !outbound.is_closing {
            Frame::Close(inbound.close_code()).encode(&mut outbound.head);
            outbound.is_closing = true;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
