use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

fn pair() -> (Sealer, Opener) {
    (Sealer::new(&KEY), Opener::new(&KEY))
}

fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> BytesMut {
    let mut wire = BytesMut::zeroed(FRAME_HEADER_BYTES);
    wire.extend_from_slice(plaintext);
    sealer.open_bytes = wire.len();
    sealer.finish(&mut wire).expect("seal");
    wire
}

fn open_whole(opener: &mut Opener, mut wire: BytesMut) -> Result<BytesMut, RecordError> {
    let plaintext = opener.open(&mut wire)?.expect("a whole record");
    assert!(wire.is_empty());
    Ok(plaintext)
}

/// Nonce and record computed with Python's `cryptography` 48: `ChaCha20Poly1305(b"\x07" * 32).encrypt(nonce, b"hello", b"")`.
#[test]
fn record_number_is_a_big_endian_nonce() {
    let number = 0x0102_0304_0506_0708;
    let mut sealer = Sealer::new(&KEY);
    sealer.cipher.next_number = number;
    let nonce = Cipher { next_number: number, ..Cipher::new(&KEY) }.next_nonce().expect("nonce");
    assert_eq!(nonce.as_ref(), &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        HEXLOWER.encode(&sealed(&mut sealer, b"hello")),
        "040015bba2213c0c834070db2ed35d1dbd4ec6563ac73b18"
    );
}

#[test]
fn a_second_record_has_another_number() {
    let (mut sealer, mut opener) = pair();
    let (first, second) = (sealed(&mut sealer, b"same"), sealed(&mut sealer, b"same"));
    assert_ne!(first, second);
    assert_eq!(open_whole(&mut opener, first).as_deref(), Ok(&b"same"[..]));
    assert_eq!(open_whole(&mut opener, second).as_deref(), Ok(&b"same"[..]));
}

#[test]
fn records_are_filled_to_the_brim() {
    let (mut sealer, _) = pair();
    for (plaintext_bytes, wire_bytes) in [
        (0, 0),
        (1, 20),
        (RECORD_PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX),
        (RECORD_PLAINTEXT_BYTES_MAX + 1, RECORD_BYTES_MAX + 20),
        (3 * RECORD_PLAINTEXT_BYTES_MAX, 3 * RECORD_BYTES_MAX),
    ] {
        let mut wire = BytesMut::new();
        sealer.seal_into([&vec![0; plaintext_bytes][..]], &mut wire).expect("seal");
        assert_eq!(wire.len(), wire_bytes, "for {plaintext_bytes} bytes");
    }
}

#[test]
fn empty_record_is_legal() {
    let (mut sealer, mut opener) = pair();
    let empty = sealed(&mut sealer, b"");
    assert_eq!(open_whole(&mut opener, empty).as_deref(), Ok(&b""[..]));
}

#[test]
fn incomplete_record_is_left_untouched() {
    let (mut sealer, mut opener) = pair();
    let whole = sealed(&mut sealer, b"hello");
    for length in 0..whole.len() {
        let mut part = BytesMut::from(&whole[..length]);
        assert_eq!(opener.open(&mut part), Ok(None));
        assert_eq!(part, whole[..length]);
    }
    assert_eq!(open_whole(&mut opener, whole).as_deref(), Ok(&b"hello"[..]));
}

fn check_refused(wire: &[u8], expected: RecordError) {
    let (mut sealer, mut opener) = pair();
    assert_eq!(opener.open(&mut BytesMut::from(wire)), Err(expected));
    let genuine = sealed(&mut sealer, b"hello");
    assert_eq!(open_whole(&mut opener, genuine), Err(expected), "errors are for good");
}

#[test]
fn impossible_headers_are_refused_at_once() {
    check_refused(&[3, 0, 20], RecordError::Type { got: 3 });
    check_refused(&[4, 0, 15], RecordError::Length { got: 15 });
    check_refused(&[4, 0x0f, 0xfe], RecordError::Length { got: 4094 });
    check_refused(&[4, 0xff, 0xff], RecordError::Length { got: 65_535 });
    let (_, mut opener) = pair();
    assert_eq!(opener.open(&mut BytesMut::from(&[4, 0x0f, 0xfd][..])), Ok(None));
}

#[test]
fn no_byte_of_a_ciphertext_can_be_changed() {
    let genuine = sealed(&mut pair().0, b"hello");
    for position in FRAME_HEADER_BYTES..genuine.len() {
        let mut changed = genuine.clone();
        changed[position] ^= 0x20;
        check_refused(&changed, RecordError::Unauthentic);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    let (mut sealer, mut opener) = pair();
    sealed(&mut sealer, b"first");
    let second = sealed(&mut sealer, b"second");
    assert_eq!(open_whole(&mut opener, second), Err(RecordError::Unauthentic));
}

#[test]
fn last_number_is_never_used() {
    let (mut sealer, mut opener) = pair();
    sealer.cipher.next_number = u64::MAX - 1;
    opener.cipher.next_number = u64::MAX - 1;
    let last = sealed(&mut sealer, b"last");
    assert_eq!(open_whole(&mut opener, last.clone()).as_deref(), Ok(&b"last"[..]));
    for _ in 0..2 {
        let mut wire = BytesMut::from("before");
        assert_eq!(sealer.seal_into([&b"more"[..]], &mut wire), Err(RecordError::Exhausted));
        assert_eq!(wire, "before");
    }
    assert_eq!(open_whole(&mut opener, last), Err(RecordError::Exhausted));
}

#[test]
fn a_record_stays_open_until_it_is_full_or_finished() {
    let (mut sealer, mut opener) = pair();
    let mut wire = BytesMut::from("before");
    sealer.finish(&mut wire).expect("nothing to seal");
    for piece in [&b"two "[..], b"", b"pieces"] {
        sealer.append(piece, &mut wire).expect("room");
    }
    // The part in front may have been sent meanwhile.
    wire.advance("before".len());
    sealer.finish(&mut wire).expect("seal");
    sealer.append(&[7; RECORD_PLAINTEXT_BYTES_MAX], &mut wire).expect("seal");
    sealer.finish(&mut wire).expect("nothing to seal");
    assert_eq!(opener.open(&mut wire).expect("a record").as_deref(), Some(&b"two pieces"[..]));
    let full = opener.open(&mut wire).expect("a record").expect("a whole one");
    assert_eq!((full.len(), wire.len()), (RECORD_PLAINTEXT_BYTES_MAX, 0));
}

#[test]
fn pieces_share_records() {
    let (mut sealer, mut opener) = pair();
    let mut wire = BytesMut::new();
    sealer.seal_into([&b"one, "[..], b"", b"two"], &mut wire).expect("seal");
    assert_eq!(open_whole(&mut opener, wire).as_deref(), Ok(&b"one, two"[..]));
}

/// A piece of a write: short ones and such as need several records.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 4_000..9_000),
    ]
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_the_same(
        writes in prop::collection::vec(prop::collection::vec(pieces(), 0..4), 0..4),
        chunk_bytes in 1_usize..9_000,
    ) {
        let (mut sealer, mut opener) = pair();
        let mut wire = BytesMut::new();
        for write in &writes {
            sealer.seal_into(write.iter().map(Vec::as_slice), &mut wire).expect("seal");
        }
        let (mut received, mut opened) = (BytesMut::new(), Vec::new());
        for chunk in wire.chunks(chunk_bytes) {
            received.extend_from_slice(chunk);
            while let Some(plaintext) = opener.open(&mut received).expect("open") {
                opened.extend_from_slice(&plaintext);
            }
        }
        prop_assert_eq!(opened, writes.concat().concat());
        prop_assert!(received.is_empty());
    }

    #[test]
    fn any_bytes_end_as_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
        let (_, mut opener) = pair();
        let mut wire = BytesMut::from(&bytes[..]);
        prop_assert_ne!(opener.open(&mut wire).map(|record| record.is_some()), Ok(true));
    }
}
