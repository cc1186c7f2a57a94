use proptest::prelude::*;

use super::*;

fn challenge() -> ChallengePublic {
    ChallengePublic::from_bytes([0xab; 32])
}

fn check(received: &[u8], expected: Early) {
    assert_eq!(parse_early_payload(received).expect("no error"), expected);
}

#[test]
fn payload_is_what_go_clients_read() {
    let payload = early_payload(&challenge());
    assert_eq!(payload[..9], *b"\xff\xff\xffTS\x00\x00\x00\x5f");
    let json = format!(r#"{{"nodeKeyChallenge":"chalpub:{}"}}"#, "ab".repeat(32));
    assert_eq!(payload[9..], *json.as_bytes());
}

#[test]
fn payload_is_told_from_what_follows() {
    let mut stream = early_payload(&challenge());
    let length = stream.len();
    stream.extend_from_slice(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00");
    check(&stream, Early::Present { challenge: challenge(), length });
    for incomplete in 0..length {
        check(&stream[..incomplete], Early::Incomplete);
    }
    check(&stream[length..], Early::Absent);
    check(&stream[length..=length], Early::Absent);
}

#[test]
fn payload_without_challenge_has_the_zero_key() {
    let json = br#"{"somethingElse":[1]}"#;
    let stream = [b"\xff\xff\xffTS\0\0\0\x15", &json[..]].concat();
    check(&stream, Early::Present { challenge: ChallengePublic::default(), length: 9 + 21 });
}

#[test]
fn too_long_a_payload_is_refused_by_its_header() {
    let error = parse_early_payload(b"\xff\xff\xffTS\x00\xa0\x00\x01").expect_err("too long");
    assert!(matches!(error, EarlyError::TooLong { got: 10_485_761 }));
    check(b"\xff\xff\xffTS\x00\xa0\x00\x00", Early::Incomplete);
}

#[test]
fn malformed_json_is_refused() {
    for json in [&b""[..], b"7", b"{", br#"{"nodeKeyChallenge":"mkey:00"}"#] {
        let length = u8::try_from(json.len()).expect("short");
        let stream = [b"\xff\xff\xffTS\0\0\0", &[length][..], json].concat();
        assert!(matches!(parse_early_payload(&stream), Err(EarlyError::Malformed(_))));
    }
}

proptest! {
    #[test]
    fn any_bytes_end_as_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse_early_payload(&bytes);
        let _ = parse_early_payload(&[b"\xff\xff\xffTS\0\0\0", &bytes[..]].concat());
    }
}
