//! On an open stream: the HTTP upgrade, then the DERP login.

use std::io;

use bytes::{Buf, BytesMut};
use mesh_derp::{
    ClientInfo, ClientLogin, FrameReader, NONCE_BYTES, PROTOCOL_VERSION, Rate, ServerFrame,
    ServerInfo,
};
use mesh_keys::{MeshKey, NodePrivate};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{ConnectError, LoggedIn};
use crate::connection::{BUFFER_BYTES, read_more, take_frame};
use crate::outbox::SEND_BYTES_MAX;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// The status of an upgrade that succeeds.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Upgrades the stream and logs in.
///
/// How long it may take is for the caller to say.
pub(crate) async fn log_in<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    host: &str,
    private: &NodePrivate,
    mesh_key: Option<&MeshKey>,
) -> Result<LoggedIn, ConnectError> {
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    upgrade(io, host, &mut input).await?;

    let greeting = next_frame(io, &mut input, ConnectError::BeforeLogin, |frame| {
        if let ServerFrame::ServerKey(relay) = frame { Some(relay) } else { None }
    });
    let relay = greeting.await?;
    if relay == private.public() {
        return Err(ConnectError::Myself);
    }
    let login = ClientLogin::new(private, &relay)?;
    let info = ClientInfo {
        version: PROTOCOL_VERSION,
        mesh_key: mesh_key.cloned(),
        can_ack_pings: true,
        ..ClientInfo::default()
    };
    let mut hello = Vec::new();
    login.encode_client_info(random_nonce()?, &info, &mut hello);
    write(io, &hello).await?;

    // That the box opens proves that the relay holds its key.
    let answer = next_frame(io, &mut input, ConnectError::WithinLogin, |frame| {
        if let ServerFrame::ServerInfo(sealed) = frame {
            Some(login.open_server_info(sealed))
        } else {
            None
        }
    });
    let rate = told_rate(answer.await??);
    Ok(LoggedIn { relay, input, rate })
}

/// What a relay will take from us, if it says. The burst holds one frame at least, or the longest would never leave.
///
/// Source: tailscale `derp/derp_client.go`, `setSendRateLimiter`.
fn told_rate(info: ServerInfo) -> Option<Rate> {
    let per_second = info.token_bucket_bytes_per_second;
    let burst = info.token_bucket_bytes_burst.max(SEND_BYTES_MAX);
    (per_second > 0).then_some(Rate { per_second, burst })
}

async fn upgrade<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    host: &str,
    input: &mut BytesMut,
) -> Result<(), ConnectError> {
    let request = format!(
        "GET /derp HTTP/1.1\r\nHost: {host}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
    );
    write(io, request.as_bytes()).await?;
    loop {
        if let Some((status, taken)) = parse_head(input)? {
            input.advance(taken);
            return if status == SWITCHING_PROTOCOLS {
                Ok(())
            } else {
                Err(ConnectError::Status(status))
            };
        }
        if input.len() >= HEAD_BYTES_MAX {
            return Err(ConnectError::HeadTooLong);
        }
        read_more(io, input).await.map_err(ConnectError::BeforeLogin)?;
    }
}

/// Reads the status in the head of an answer, once all of it is there, and says how long it is.
fn parse_head(input: &[u8]) -> Result<Option<(u16, usize)>, ConnectError> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(taken) = head.parse(input)? else {
        return Ok(None);
    };
    Ok(Some((head.code.unwrap_or_default(), taken)))
}

/// Waits for the next frame, of which `convert` must make something. `ended` is told if it does not come.
async fn next_frame<IO: AsyncRead + Unpin, T>(
    io: &mut IO,
    input: &mut BytesMut,
    ended: fn(io::Error) -> ConnectError,
    convert: impl Fn(ServerFrame<'_>) -> Option<T>,
) -> Result<T, ConnectError> {
    // One reader for one frame: after a frame it has nothing left to skip.
    let mut frames = FrameReader::new();
    loop {
        if let Some((converted, _)) = take_frame(&mut frames, input, &convert)? {
            return converted.ok_or(ConnectError::OutOfStep);
        }
        read_more(io, input).await.map_err(ended)?;
    }
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], ConnectError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| ConnectError::Random)?;
    Ok(nonce)
}

async fn write<IO: AsyncWrite + Unpin>(io: &mut IO, bytes: &[u8]) -> Result<(), ConnectError> {
    io.write_all(bytes).await.map_err(ConnectError::BeforeLogin)?;
    io.flush().await.map_err(ConnectError::BeforeLogin)
}

#[cfg(test)]
mod tests;
