//! The bodies of the client protocol, in both directions.

use std::fmt::Debug;

use mesh_wire::{MapRequest, MapResponse, RegisterRequest, RegisterResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The body of `/machine/register` and of its answer.
pub(crate) fn register(input: &[u8]) {
    body::<RegisterRequest>(input);
    body::<RegisterResponse>(input);
}

/// The body of `/machine/map` and one message of its answer.
pub(crate) fn map(input: &[u8]) {
    body::<MapRequest>(input);
    body::<MapResponse>(input);
}

/// What was read reads back the same once it is written.
fn body<T: DeserializeOwned + Serialize + PartialEq + Debug>(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(input) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again = serde_json::from_slice::<T>(&written).expect("what was written can be read");
    assert_eq!(again, value);
}
