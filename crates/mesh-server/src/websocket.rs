//! A WebSocket as a stream of bytes, for clients that live in a browser.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest message, in bytes. A message is a piece of the stream, of whatever length suits its sender.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Binary messages of a WebSocket, one after the other; where one ends means nothing.
pub(crate) struct WebSocketStream {
    socket: WebSocket,
    /// What the last message still holds for the reader.
    received: Bytes,
}

impl WebSocketStream {
    pub(crate) fn new(socket: WebSocket) -> Self {
        Self { socket, received: Bytes::new() }
    }

    fn poll_sink(
        &mut self,
        poll: impl FnOnce(Pin<&mut WebSocket>) -> Poll<Result<(), axum::Error>>,
    ) -> Poll<io::Result<()>> {
        poll(Pin::new(&mut self.socket)).map_err(io::Error::other)
    }
}

impl AsyncRead for WebSocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                // Pings are answered below us; text means nothing here.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..length]);
        self.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sink(|socket| socket.poll_ready(cx)))?;
        let piece = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sink(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sink(|socket| socket.poll_close(cx))
    }
}
