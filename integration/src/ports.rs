//! Ports that stay ours while a server is down.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Context as _, Result};

/// Below the ports that Linux gives to outgoing connections (32768 and up), so that no client takes a
/// server's port while the server restarts.
const RANGE: Range<u16> = 20_000..32_000;

/// The next port to try. Processes start at different places, for several may run at once.
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// A port of 127.0.0.1 that is free for TCP and UDP and that no other scenario of this process was given.
pub(crate) fn free() -> Result<u16> {
    let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let size = RANGE.end - RANGE.start;
    let spread = u16::try_from(std::process::id() % u32::from(size / 100))? * 100;
    let mut port = next.unwrap_or(RANGE.start + spread);
    let is_free = |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let found = std::iter::repeat_with(|| {
        port = if port + 1 < RANGE.end { port + 1 } else { RANGE.start };
        port
    })
    .take(usize::from(size))
    .find(|port| is_free(*port))
    .context("no port is free")?;
    *next = Some(found);
    Ok(found)
}
