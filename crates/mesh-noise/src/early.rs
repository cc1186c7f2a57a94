//! The early payload: what a server may say inside the channel before HTTP/2 begins.
//!
//! `FF FF FF 'T' 'S' | big-endian length (4) | JSON {"nodeKeyChallenge":"chalpub:..."}`. A server may as well
//! begin with HTTP/2 at once; no HTTP/2 frame of such a length is legal there, so the first bytes tell.
//! Source: tailscale `control/ts2021/conn.go`, `tailcfg.EarlyNoise`.

use mesh_keys::ChallengePublic;
use serde::Deserialize;
use thiserror::Error;

/// Most bytes of JSON that a client accepts, as the Go client does. The `tailscale` crate stops at 1024.
pub const EARLY_PAYLOAD_BYTES_MAX: usize = 10 << 20;

const MAGIC: &[u8] = b"\xff\xff\xffTS";
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();

/// What the beginning of a server's stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// Too little has arrived to tell.
    Incomplete,
    /// There is no early payload: these bytes belong to what comes next.
    Absent,
    /// An early payload.
    Present {
        /// The challenge that the server's payload carries; zero when it carries none.
        challenge: ChallengePublic,
        /// Length of the whole payload in bytes, header included: what comes next begins there.
        length: usize,
    },
}

/// Why an early payload was refused.
#[derive(Debug, Error)]
pub enum EarlyError {
    /// It announces more than [`EARLY_PAYLOAD_BYTES_MAX`].
    #[error("early payload of {got} bytes")]
    TooLong {
        /// The announced length of the JSON in bytes.
        got: usize,
    },
    /// Its JSON does not read as an early payload.
    #[error("early payload is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// `tailcfg.EarlyNoise`.
#[derive(Deserialize)]
struct EarlyNoise {
    #[serde(default, rename = "nodeKeyChallenge")]
    node_key_challenge: ChallengePublic,
}

/// The early payload for `challenge`, to be sent as the first bytes inside the channel.
pub fn early_payload(challenge: &ChallengePublic) -> Vec<u8> {
    let json = format!(r#"{{"nodeKeyChallenge":"{challenge}"}}"#);
    let length = u32::try_from(json.len()).expect("invariant: a key's text is short");
    let mut payload = MAGIC.to_vec();
    payload.extend_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(json.as_bytes());
    payload
}

/// Judges the beginning of a server's stream: `received` is all that has arrived so far.
///
/// # Errors
/// [`EarlyError::TooLong`] as soon as the header is there.
pub fn parse_early_payload(received: &[u8]) -> Result<Early, EarlyError> {
    let seen = received.len().min(MAGIC.len());
    if received[..seen] != MAGIC[..seen] {
        return Ok(Early::Absent);
    }
    let Some((header, rest)) = received.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Early::Incomplete);
    };
    let &[.., a, b, c, d] = header;
    let json_bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if json_bytes > EARLY_PAYLOAD_BYTES_MAX {
        return Err(EarlyError::TooLong { got: json_bytes });
    }
    let Some(json) = rest.get(..json_bytes) else { return Ok(Early::Incomplete) };
    let EarlyNoise { node_key_challenge: challenge } = serde_json::from_slice(json)?;
    Ok(Early::Present { challenge, length: HEADER_BYTES + json_bytes })
}

#[cfg(test)]
mod tests;
