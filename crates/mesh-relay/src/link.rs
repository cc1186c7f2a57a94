//! What a connection is made of below its frames: TLS, or nothing.

use std::io::{self, BufRead as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use crate::wide::Wide;

/// A stream whose bytes can be looked at where they are, without a copy for whoever reads them.
pub(crate) trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Hands on what has come, chunk by chunk, about as much as one read of the socket brings. Returns how many bytes that were,
    /// none at the end of the stream.
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>>;
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for Wide<IO> {
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        let chunk = ready!(Pin::new(&mut *self).poll_fill_buf(cx))?;
        let length = chunk.len();
        take(chunk)?;
        if length > 0 {
            Pin::new(self).consume(length);
        }
        Poll::Ready(Ok(length))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for TlsStream<Wide<IO>> {
    fn poll_receive<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<usize, E>> {
        let (io, tls) = self.get_mut();
        // Something may be left of a handshake or a login.
        let mut plain = Plain::take(tls, &mut take)?;
        while plain.bytes == 0 && !plain.has_ended {
            let sealed = ready!(Pin::new(&mut *io).poll_fill_buf(cx))?;
            let mut rest = sealed;
            let length = sealed.len();
            if length == 0 {
                break;
            }
            while !rest.is_empty() && !plain.has_ended {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                plain.add(Plain::take(tls, &mut take)?);
            }
            Pin::new(&mut *io).consume(length);
        }
        Poll::Ready(Ok(plain.bytes))
    }
}

/// What was opened.
#[derive(Clone, Copy)]
struct Plain {
    bytes: usize,
    /// Whether the peer has said that nothing more comes.
    has_ended: bool,
}

impl Plain {
    fn take<E: From<io::Error>>(
        tls: &mut ServerConnection,
        take: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut plain = Self { bytes: 0, has_ended: false };
        let mut reader = tls.reader();
        loop {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(plain),
                Err(error) => return Err(error.into()),
            };
            let length = chunk.len();
            if length == 0 {
                plain.has_ended = true;
                return Ok(plain);
            }
            take(chunk)?;
            reader.consume(length);
            plain.bytes += length;
        }
    }

    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.has_ended |= more.has_ended;
    }
}
