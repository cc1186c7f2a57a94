//! What a stack is told at birth.

use std::net::IpAddr;

use crate::memory::BUFFER_BYTES_MIN;
use crate::tcp::BUFFER_BYTES_MAX;

/// The smallest MTU that IPv6 allows, which is also the one of a tailnet.
const MTU_BYTES_MIN: usize = 1280;

/// The largest IP packet.
const MTU_BYTES_MAX: usize = 65_535;

/// The settings of a stack.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest packet to send, in bytes with its IP header; at least 1280.
    pub mtu: usize,
    /// The addresses of the own node.
    pub addresses: Vec<IpAddr>,
    /// How large each of the two buffers of a TCP connection may grow, in bytes; taken as the next power of two, from
    /// 32 KiB to 8 MiB. A connection moves at most this much per round trip. Buffers grow by need, and beyond 32 KiB
    /// only as long as those of all connections take less than 64 MiB more; without traffic they take nothing.
    pub tcp_buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mtu: MTU_BYTES_MIN, addresses: Vec::new(), tcp_buffer_bytes: 4 * 1024 * 1024 }
    }
}

impl Config {
    /// The MTU within what IP allows.
    pub(crate) fn mtu_bytes(&self) -> usize {
        self.mtu.clamp(MTU_BYTES_MIN, MTU_BYTES_MAX)
    }

    /// The buffer size, a power of two.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let bounded = self.tcp_buffer_bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        bounded.next_power_of_two()
    }
}
