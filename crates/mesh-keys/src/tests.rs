use super::*;

#[test]
fn text_form_round_trips() {
    let key = NodePrivate::from_bytes([7; 32]).public();
    let text = key.to_string();
    assert!(text.starts_with("nodekey:") && text.len() == 8 + 64);
    assert_eq!(text.parse(), Ok(key));
}

#[test]
fn another_kind_of_key_is_refused() {
    let text = MachinePrivate::from_bytes([7; 32]).public().to_string();
    assert_eq!(text.parse::<NodePublic>(), Err(ParseKeyError::Prefix { expected: "nodekey:" }));
    assert_eq!("mkey:12".parse::<MachinePublic>(), Err(ParseKeyError::Hex));
}

#[test]
fn debug_never_shows_a_secret() {
    let key = MachinePrivate::from_bytes([7; 32]);
    assert_eq!(format!("{key:?}"), "MachinePrivate(redacted)");
    assert!(!format!("{:?}", key.public()).contains(&key.public().to_string()));
}

#[test]
fn empty_text_is_the_zero_key_in_json() {
    let key: NodePublic = serde_json::from_str("\"\"").expect("empty key");
    assert!(key.is_zero() && key.non_zero().is_none());
}

/// Vector of RFC 7748, section 6.1 (Alice).
#[test]
fn public_half_follows_rfc_7748() {
    let secret: NodePrivate =
        "privkey:77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ac177fba51db92c2a"
            .parse()
            .expect("64 digits");
    assert_eq!(
        secret.public().to_string(),
        "nodekey:8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    );
}
