//! Packets one behind the other in one buffer, so that a batch costs no allocation per packet.

/// IP packets in the order in which they are to be sent.
///
/// One batch is meant to be used again and again: it keeps its memory when it is cleared.
#[derive(Debug, Default, Clone)]
pub struct PacketBatch {
    bytes: Vec<u8>,
    /// Where each packet ends in `bytes`; ascending.
    ends: Vec<usize>,
}

impl PacketBatch {
    /// Makes an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The packets in order, each beginning with its IP header.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len());
    }

    /// Adds a packet of `length` bytes that `fill` writes; before that they are zero.
    pub(crate) fn push_with<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        let result = fill(&mut self.bytes[start..]);
        self.ends.push(self.bytes.len());
        result
    }

    /// Takes back the last packet.
    pub(crate) fn pop(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or_default());
    }

    /// Moves all packets of `other` behind the own ones.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| end + shift));
        other.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(packets: &[&[u8]]) -> PacketBatch {
        let mut batch = PacketBatch::new();
        for packet in packets {
            batch.push_with(packet.len(), |bytes| bytes.copy_from_slice(packet));
        }
        batch
    }

    #[test]
    fn packets_come_out_as_they_went_in() {
        let mut first = batch(&[b"one", b"", b"three"]);
        first.append(&mut batch(&[b"four"]));
        first.push_with(4, |bytes| bytes.copy_from_slice(b"five"));
        first.pop();
        let packets: Vec<_> = first.packets().collect();
        assert_eq!(packets, [&b"one"[..], b"", b"three", b"four"]);
    }
}
