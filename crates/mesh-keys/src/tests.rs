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
fn a_mesh_key_is_64_digits_that_are_never_shown() {
    let digits = "0123456789abcdef".repeat(4);
    let key: MeshKey = format!("{}\n", digits.to_uppercase()).parse().expect("a key");
    assert_eq!(serde_json::to_string(&key).expect("JSON"), format!("\"{digits}\""));
    assert_eq!(format!("{key:?}"), "MeshKey(redacted)");
    let refused = |text: &str| text.parse::<MeshKey>().expect_err("refused");
    for text in ["", "none", &digits[1..], &format!("0{digits}"), &digits.replace('a', "x")] {
        assert_eq!(refused(text), ParseMeshKeyError::Hex, "{text}");
    }
    assert_eq!(refused(&"0".repeat(64)), ParseMeshKeyError::Zero);
}

#[test]
fn empty_text_is_the_zero_key_in_json() {
    let key: NodePublic = serde_json::from_str("\"\"").expect("empty key");
    assert!(key.is_zero() && key.non_zero().is_none());
}

/// First step of the iterated vector of RFC 7748, section 5.2: scalar 9 times point 9.
#[test]
fn public_half_follows_rfc_7748() {
    let mut scalar = [0; KEY_BYTES];
    scalar[0] = 9;
    assert_eq!(
        NodePrivate::from_bytes(scalar).public().to_string(),
        "nodekey:422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    );
}
