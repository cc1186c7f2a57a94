//! Frames of a relay out of records: in place where a frame lies within one, put together where it does not.

use mesh_derp::{FrameError, FrameReader, HEADER_BYTES, ServerFrame};

/// Cuts what a relay sends into frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    reader: FrameReader,
    /// The beginning of a frame whose rest has not come.
    kept: Vec<u8>,
}

impl Frames {
    /// Hands every frame that is whole with `input` to `handle`.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut handle: impl FnMut(ServerFrame<'_>),
    ) -> Result<(), FrameError> {
        while !self.kept.is_empty() && !input.is_empty() {
            let (part, rest) = input.split_at(missing(&self.kept).min(input.len()));
            input = rest;
            self.kept.extend_from_slice(part);
            let mut left = &self.kept[..];
            if let Some(frame) = self.reader.next_from_server(&mut left)? {
                handle(frame);
            }
            let taken = self.kept.len() - left.len();
            self.kept.drain(..taken);
        }
        while let Some(frame) = self.reader.next_from_server(&mut input)? {
            handle(frame);
        }
        self.kept.extend_from_slice(input);
        Ok(())
    }
}

/// How many bytes the frame that begins with `kept` lacks: those of its header first.
fn missing(kept: &[u8]) -> usize {
    let whole = match kept.first_chunk::<HEADER_BYTES>() {
        None => HEADER_BYTES,
        Some(&[_, b0, b1, b2, b3]) => HEADER_BYTES + u32::from_be_bytes([b0, b1, b2, b3]) as usize,
    };
    whole.saturating_sub(kept.len()).max(1)
}

#[cfg(test)]
mod tests {
    use mesh_keys::NodePublic;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_the_same_however_the_stream_is_cut(
            lengths in prop::collection::vec(0..3_000_usize, 1..20),
            cuts in prop::collection::vec(1..2_000_usize, 1..50),
        ) {
            let mut stream = Vec::new();
            let payloads: Vec<_> = lengths.iter().map(|bytes| vec![7; *bytes]).collect();
            let src = NodePublic::from_bytes([5; 32]);
            for payload in &payloads {
                ServerFrame::RecvPacket { src, payload }.encode(&mut stream);
                // One of a type that no client knows.
                stream.extend_from_slice(&[0x77, 0, 0, 0, 3, 1, 2, 3]);
            }
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                frames.feed(part, |frame| {
                    let ServerFrame::RecvPacket { payload, .. } = frame else { panic!("{frame:?}") };
                    got.push(payload.to_vec());
                }).unwrap();
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, payloads);
        }
    }
}
