//! Which sequence number segments without data have: a correction of smoltcp.
//!
//! RFC 9293 gives them the number behind all that was sent. After a retransmission timeout smoltcp counts again
//! from the first byte that is not acknowledged, in bare acknowledgements as well. A peer that has got more than
//! that ignores those as old. When both ends do so at once, neither hears the other any more, and the
//! connection hangs for good.

use smoltcp::wire::{
    IpAddress, IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber,
};

/// How far a connection has come with sending.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// The number behind all that was sent; `None` before the SYN.
    top: Option<TcpSeqNumber>,
    /// Whether the peer takes nothing more. What is sent then only asks whether it does again, and it will
    /// have to come once more.
    is_closed: bool,
}

impl Sequence {
    /// Notes what the peer says about its window.
    pub(crate) fn note_window(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    /// Corrects an outgoing packet.
    pub(crate) fn correct(&mut self, packet: &mut [u8]) {
        let Some((source, destination, segment)) = split(packet) else { return };
        let mut segment = TcpPacket::new_unchecked(segment);
        let length = segment.segment_len();
        let end = segment.seq_number() + length;
        match self.top {
            Some(top) if end <= top => {
                if length == 0 && end < top {
                    segment.set_seq_number(top);
                    segment.fill_checksum(&source, &destination);
                }
            }
            Some(_) if self.is_closed => {}
            Some(_) | None => self.top = Some(end),
        }
    }
}

/// The ends of an outgoing packet and its TCP segment, if it is one.
fn split(packet: &mut [u8]) -> Option<(IpAddress, IpAddress, &mut [u8])> {
    let (source, destination, protocol, header_bytes) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_unchecked(&*packet);
            let header_bytes = usize::from(ip.header_len());
            (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), header_bytes)
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_unchecked(&*packet);
            (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.header_len())
        }
    };
    let is_tcp = protocol == IpProtocol::Tcp;
    is_tcp.then(|| (source, destination, &mut packet[header_bytes..]))
}
