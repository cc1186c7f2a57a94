//! That a client has connected to a relay, as relays of one mesh tell each other.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_keys::NodePublic;

use crate::frame::{FrameError, frame_type, put_frame, split, split_key};

/// A client of a relay, as whoever watches the relay is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPresent {
    /// The client's node key.
    pub key: NodePublic,
    /// Where it connects from; unspecified if the relay does not know or say.
    pub addr: SocketAddr,
    /// What kind of client it is: the sum of [`PeerPresent::REGULAR`] and the like.
    pub flags: u8,
}

impl PeerPresent {
    /// Flag of a client that has none of the others.
    pub const REGULAR: u8 = 1;
    /// Flag of a client with the mesh key, such as another relay.
    pub const MESH_PEER: u8 = 1 << 1;
    /// Flag of a client that only measures the relay.
    pub const PROBER: u8 = 1 << 2;
    /// Bytes of an address: IPv6, with IPv4 mapped into it, and a port.
    const ADDRESS_BYTES: usize = 16 + 2;

    /// Whether it has the mesh key.
    pub(crate) fn is_mesh(&self) -> bool {
        self.flags & Self::MESH_PEER != 0
    }

    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let port = self.addr.port().to_be_bytes();
        let parts = [self.key.as_bytes().as_slice(), &ip.octets(), &port, &[self.flags]];
        put_frame(out, frame_type::PEER_PRESENT, &parts);
    }

    /// Reads the frame's payload. Old relays give no address, or no flags.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let (key, rest) = split_key(frame_type::PEER_PRESENT, payload)?;
        let (address, flags) = match rest.split_first_chunk::<{ Self::ADDRESS_BYTES }>() {
            Some((address, flags)) => (*address, flags.first().copied().unwrap_or_default()),
            None => ([0; Self::ADDRESS_BYTES], 0),
        };
        let (ip, port) = split::<16>(frame_type::PEER_PRESENT, &address)?;
        let port = u16::from_be_bytes(*split(frame_type::PEER_PRESENT, port)?.0);
        let ip = Ipv6Addr::from_octets(*ip).to_canonical();
        Ok(Self { key, addr: SocketAddr::new(ip, port), flags })
    }
}
