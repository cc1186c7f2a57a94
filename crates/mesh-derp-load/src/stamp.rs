//! What the packets of the bench carry: whose they are, their number, and when they were sent.

/// Bytes of a stamp. No packet of the bench is shorter.
pub(crate) const STAMP_BYTES: usize = 24;

/// First bytes of every packet of ours; no relay takes it for a disco packet.
const MAGIC: [u8; 4] = *b"load";

/// The beginning of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the flow it belongs to.
    pub(crate) flow: u32,
    /// Its number within the flow.
    pub(crate) number: u64,
    /// When it was made, in nanoseconds of the run.
    pub(crate) sent_at: u64,
}

impl Stamp {
    /// Writes the stamp to the front of `packet`.
    ///
    /// # Panics
    /// With a shorter packet than [`STAMP_BYTES`].
    pub(crate) fn write(&self, packet: &mut [u8]) {
        packet[..4].copy_from_slice(&MAGIC);
        packet[4..8].copy_from_slice(&self.flow.to_be_bytes());
        packet[8..16].copy_from_slice(&self.number.to_be_bytes());
        packet[16..STAMP_BYTES].copy_from_slice(&self.sent_at.to_be_bytes());
    }

    /// Reads the stamp of a packet; `None` if it has none.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let (magic, rest) = packet.split_first_chunk::<4>()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sent_at, _) = rest.split_first_chunk()?;
        (*magic == MAGIC).then(|| Self {
            flow: u32::from_be_bytes(*flow),
            number: u64::from_be_bytes(*number),
            sent_at: u64::from_be_bytes(*sent_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_nothing_else_is() {
        let stamp = Stamp { flow: 7, number: u64::MAX, sent_at: 1 << 40 };
        let mut packet = [0xaa; 64];
        stamp.write(&mut packet);
        assert_eq!(Stamp::read(&packet), Some(stamp));
        assert_eq!(Stamp::read(&packet[..STAMP_BYTES - 1]), None);
        packet[0] ^= 1;
        assert_eq!(Stamp::read(&packet), None);
    }
}
