//! What a stack is told at birth.

use std::net::IpAddr;

/// The smallest MTU that IPv6 allows, which is also the one of a tailnet.
const MTU_BYTES_MIN: usize = 1280;

/// The largest IP packet.
const MTU_BYTES_MAX: usize = 65_535;

/// The largest buffer: with a larger one the window field cannot be scaled any more (RFC 7323).
const TCP_BUFFER_BYTES_MAX: usize = 1 << 30;

/// The smallest buffer: what a window says without scaling.
const TCP_BUFFER_BYTES_MIN: usize = 1 << 16;

/// The settings of a stack.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest packet to send, in bytes with its IP header; at least 1280.
    pub mtu: usize,
    /// The addresses of the own node.
    pub addresses: Vec<IpAddr>,
    /// Size of each of the two buffers of a TCP connection, in bytes; taken as the next power of two, at
    /// least 64 KiB. A connection moves at most this much per round trip, and costs up to twice as much; the
    /// operating system gives that memory only as bytes pass.
    pub tcp_buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mtu: MTU_BYTES_MIN, addresses: Vec::new(), tcp_buffer_bytes: 256 * 1024 }
    }
}

impl Config {
    /// The MTU within what IP allows.
    pub(crate) fn mtu_bytes(&self) -> usize {
        self.mtu.clamp(MTU_BYTES_MIN, MTU_BYTES_MAX)
    }

    /// The buffer size, one byte below a power of two.
    ///
    /// The byte less is for safety: smoltcp takes the window of its own SYN, which is never scaled, for a
    /// scaled one until its next segment. With a whole power of two a peer could fill twice the buffer, and
    /// smoltcp would panic; with one byte less, `65_535 << shift` is never more than the buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let bounded = self.tcp_buffer_bytes.clamp(TCP_BUFFER_BYTES_MIN, TCP_BUFFER_BYTES_MAX);
        bounded.next_power_of_two() - 1
    }
}
