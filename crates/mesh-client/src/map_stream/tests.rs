use proptest::prelude::*;

use super::*;

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    [&length.to_le_bytes()[..], payload].concat()
}

fn compressed(json: &[u8]) -> Vec<u8> {
    zstd::encode_all(json, 1).expect("compress")
}

fn decompress(payload: &[u8], max: usize) -> Result<Bytes, MapStreamError> {
    Message::new(Bytes::copy_from_slice(payload), true).json_up_to(max)
}

/// Feeds `stream` in chunks and returns the messages.
fn read(stream: &[u8], is_compressed: bool, chunk: usize) -> Result<Vec<Bytes>, MapStreamError> {
    let mut frames = FrameReader::new(is_compressed);
    let mut messages = Vec::new();
    for chunk in stream.chunks(chunk) {
        frames.push(Bytes::copy_from_slice(chunk));
        while let Some(message) = frames.take()? {
            messages.push(message.json()?);
        }
    }
    assert!(frames.received.is_empty(), "nothing is left over");
    Ok(messages)
}

#[test]
fn message_may_be_several_zstd_frames() {
    let payload = [compressed(b"{\"Peers\":["), compressed(b"1,2"), compressed(b"]}")].concat();
    let messages = read(&framed(&payload), true, 5).expect("messages");
    assert_eq!(messages, [&b"{\"Peers\":[1,2]}"[..]]);
}

#[test]
fn impossible_lengths_are_refused_by_their_header() {
    assert!(matches!(read(&[0; 4], false, 4), Err(MapStreamError::Empty)));
    let long = u32::try_from(FRAME_BYTES_MAX + 1).expect("below 4 GiB").to_le_bytes();
    assert!(matches!(read(&long, true, 4), Err(MapStreamError::TooLong)));
}

#[test]
fn bomb_is_refused() {
    let bomb = compressed(&vec![0; 100_000]);
    assert!(bomb.len() < 100);
    assert!(matches!(decompress(&bomb, 99_999), Err(MapStreamError::TooLong)));
    assert_eq!(decompress(&bomb, 100_000).expect("at the limit").len(), 100_000);
}

#[test]
fn broken_zstd_is_an_error() {
    let whole = compressed(b"some text that is long enough to be worth a few bytes");
    for length in 1..whole.len() {
        let result = decompress(&whole[..length], FRAME_BYTES_MAX);
        assert!(matches!(result, Err(MapStreamError::Compression(_))), "{length} bytes");
    }
    assert!(matches!(decompress(b"plain", 100), Err(MapStreamError::Compression(_))));
}

proptest! {
    #[test]
    fn no_chunking_changes_the_messages(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..5),
        chunk in 1_usize..300,
        is_compressed: bool,
    ) {
        let stream: Vec<u8> = payloads
            .iter()
            .flat_map(|payload| framed(&if is_compressed { compressed(payload) } else { payload.clone() }))
            .collect();
        prop_assert_eq!(read(&stream, is_compressed, chunk).expect("messages"), payloads);
    }
}
