//! Keys as text.

use std::fmt::Display;
use std::str::FromStr;

use mesh_keys::{
    ChallengePublic, DerpPrivate, DiscoPublic, MachinePrivate, MachinePublic, NetworkLockPublic,
    NodePrivate, NodePublic,
};

/// Every kind of key, from any text.
pub(crate) fn keys(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    public::<NodePublic>(text);
    public::<MachinePublic>(text);
    public::<DiscoPublic>(text);
    public::<ChallengePublic>(text);
    public::<NetworkLockPublic>(text);
    let _ = text.parse::<NodePrivate>();
    let _ = text.parse::<MachinePrivate>();
    let _ = text.parse::<DerpPrivate>();
}

/// A public key reads back from what it prints, which is the given text in lower case.
fn public<K: FromStr + Display>(text: &str) {
    if let Ok(key) = text.parse::<K>() {
        assert_eq!(key.to_string(), text.to_ascii_lowercase());
    }
}
