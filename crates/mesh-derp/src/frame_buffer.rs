//! Frames out of bytes that come in chunks.

use crate::frame::{ClientFrame, FrameError, FrameReader, HEADER_BYTES, ServerFrame, peek_header};

/// Bytes that are kept for the next frame which two chunks share: most packets fit in.
const KEPT_BYTES_MAX: usize = 2 << 10;

/// Cuts frames out of chunks of a stream, and copies none but those that a chunk ends within.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    reader: FrameReader,
    /// The beginning of a frame.
    partial: Vec<u8>,
}

impl FrameBuffer {
    /// Hands on all frames of a client that end in the next chunk.
    ///
    /// # Errors
    /// [`FrameError`] as [`FrameReader::next_from_client`], and what `handle` returns; the stream is of no use then.
    pub fn take_from_client<E: From<FrameError>>(
        &mut self,
        chunk: &[u8],
        mut handle: impl FnMut(&ClientFrame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(chunk, |reader, input| match reader.next_from_client(input)? {
            Some(frame) => handle(&frame).map(|()| true),
            None => Ok(false),
        })
    }

    /// Hands on all frames of a relay that end in the next chunk.
    ///
    /// # Errors
    /// As [`Self::take_from_client`].
    pub fn take_from_server<E: From<FrameError>>(
        &mut self,
        chunk: &[u8],
        mut handle: impl FnMut(&ServerFrame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(chunk, |reader, input| match reader.next_from_server(input)? {
            Some(frame) => handle(&frame).map(|()| true),
            None => Ok(false),
        })
    }

    /// Has `next` take frame after frame off the front of what it is given, until it says that none is whole.
    fn take<E>(
        &mut self,
        mut chunk: &[u8],
        mut next: impl FnMut(&mut FrameReader, &mut &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        while !self.partial.is_empty() {
            let missing = self.missing();
            let (head, tail) = chunk.split_at(missing.min(chunk.len()));
            self.partial.extend_from_slice(head);
            if head.len() < missing {
                return Ok(());
            }
            chunk = tail;
            let mut rest = &self.partial[..];
            next(&mut self.reader, &mut rest)?;
            if rest.is_empty() {
                self.partial.clear();
                self.partial.shrink_to(KEPT_BYTES_MAX);
            }
        }
        while next(&mut self.reader, &mut chunk)? {}
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    /// How many bytes are missing until the header is there, or with it the whole frame.
    fn missing(&self) -> usize {
        let bytes = peek_header(&self.partial).map_or(0, |(_, bytes)| bytes);
        HEADER_BYTES + bytes - self.partial.len()
    }
}

#[cfg(test)]
mod tests {
    use mesh_keys::{KEY_BYTES, NodePublic};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a reader makes of a stream in one piece: its frames, and the error behind them.
    fn whole(stream: &[u8]) -> (Vec<String>, Option<FrameError>) {
        let (mut reader, mut rest, mut frames) = (FrameReader::new(), stream, Vec::new());
        loop {
            match reader.next_from_client(&mut rest) {
                Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn in_chunks(stream: &[u8], lengths: &[usize]) -> (Vec<String>, Option<FrameError>) {
        let (mut buffer, mut rest, mut frames) = (FrameBuffer::default(), stream, Vec::new());
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let (chunk, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            let taken = buffer.take_from_client(chunk, |frame| {
                frames.push(format!("{frame:?}"));
                Ok::<_, FrameError>(())
            });
            if let Err(error) = taken {
                return (frames, Some(error));
            }
        }
        (frames, None)
    }

    prop_compose! {
        fn any_frame()(kind in 0..8_u8, payload in vec(any::<u8>(), 0..60)) -> Vec<u8> {
            let mut bytes = Vec::new();
            match kind {
                0 => ClientFrame::Ping([1; 8]).encode(&mut bytes),
                1 => ClientFrame::NotePreferred(true).encode(&mut bytes),
                2 => ClientFrame::WatchConns.encode(&mut bytes),
                // Of a type that nobody knows, or too long for its own.
                3 => bytes.extend_from_slice(&[[0x77, 0, 0, 0, 30].as_slice(), &[0; 30]].concat()),
                4 => bytes.extend_from_slice(&[0x07, 0, 0, 1, 0]),
                _ => {
                    let dst = NodePublic::from_bytes([2; KEY_BYTES]);
                    ClientFrame::SendPacket { dst, payload: &payload }.encode(&mut bytes);
                }
            }
            bytes
        }
    }

    #[test]
    fn frames_of_a_relay_come_in_chunks_too() {
        let (src, mut stream) = (NodePublic::from_bytes([3; KEY_BYTES]), Vec::new());
        let frames = [
            ServerFrame::RecvPacket { src, payload: b"packet" },
            ServerFrame::KeepAlive,
            ServerFrame::Pong([4; 8]),
        ];
        for frame in &frames {
            frame.encode(&mut stream);
        }
        for length in 1..stream.len() {
            let (mut buffer, mut came) = (FrameBuffer::default(), Vec::new());
            for chunk in stream.chunks(length) {
                let taken = buffer.take_from_server(chunk, |frame| {
                    came.push(format!("{frame:?}"));
                    Ok::<_, FrameError>(())
                });
                taken.expect("frames");
            }
            assert_eq!(came, frames.map(|frame| format!("{frame:?}")), "in chunks of {length}");
        }
    }

    proptest! {
        #[test]
        fn chunks_make_the_same_frames_as_the_whole(
            frames in vec(any_frame(), 0..12),
            cut in 0..40_usize,
            lengths in vec(0..90_usize, 0..20),
        ) {
            let mut stream = frames.concat();
            stream.truncate(stream.len().saturating_sub(cut));
            prop_assert_eq!(in_chunks(&stream, &lengths), whole(&stream));
        }
    }
}
