//! The handshake `Noise_IK_25519_ChaChaPoly_BLAKE2s`: two messages, then a [`Transport`] on either side.
//!
//! The client speaks first and knows the server's static key; the server learns the client's (the machine
//! key) from the message. The client's capability version travels in clear and is bound by the prologue.
//! Source: tailscale `control/controlbase/{handshake,messages}.go`.

use mesh_keys::{KEY_BYTES, MachinePrivate, MachinePublic};
use snow::{Builder, HandshakeState};
use thiserror::Error;

use crate::dh;
use crate::record::{Opener, Sealer, Transport};

/// Length of the client's message: version (2), type (1), length (2), ephemeral key (32), sealed static
/// key (48), tag (16).
pub const INITIATION_BYTES: usize = 101;

/// Length of the server's message: type (1), length (2), ephemeral key (32), tag (16).
pub const RESPONSE_BYTES: usize = 51;

/// Length of the header of every frame but the initiation: type (1), big-endian length of the rest (2).
pub const FRAME_HEADER_BYTES: usize = 3;

const TYPE_INITIATION: u8 = 1;
const TYPE_RESPONSE: u8 = 2;
const TYPE_ERROR: u8 = 3;

/// Type and length of the server's message.
const RESPONSE_HEADER: [u8; FRAME_HEADER_BYTES] = [TYPE_RESPONSE, 0, 48];
/// Type and length of the client's message, behind its version.
const INITIATION_HEADER: [u8; 3] = [TYPE_INITIATION, 0, 96];

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// Why a handshake ended without a channel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The message, or the length its header announces, is not what this message has.
    #[error("handshake message has {got} bytes instead of {expected}")]
    Length {
        /// What the message must have.
        expected: usize,
        /// What it has or announces.
        got: usize,
    },
    /// Another message was due.
    #[error("handshake message is of type {got} instead of {expected}")]
    Type {
        /// The type that was due.
        expected: u8,
        /// The type that came.
        got: u8,
    },
    /// A public key of low order, as the all-zero key: the shared secret would be known to everybody.
    #[error("public key of low order")]
    LowOrderKey,
    /// Made for another server key or version, or changed on its way.
    #[error("handshake message does not authenticate")]
    Unauthentic,
    /// The operating system gave no randomness for the ephemeral key.
    #[error("no randomness for the ephemeral key")]
    Randomness,
    /// The server sent an error frame. Nothing authenticates its text: a hint for people, at most.
    #[error("server refused the handshake: {message:?}")]
    Refused {
        /// What the server said.
        message: String,
    },
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        if error == snow::Error::Dh {
            Self::LowOrderKey
        } else if error == snow::Error::Rng {
            Self::Randomness
        } else {
            Self::Unauthentic
        }
    }
}

/// The server's end: answers initiations with one static key, any number of them.
#[derive(Debug, Clone)]
pub struct Responder {
    key: MachinePrivate,
}

/// A handshake that the server has finished; the client will have once it reads [`Self::response`].
#[derive(Debug)]
pub struct Accepted {
    /// The client's static key. It proved to hold the private half.
    pub peer: MachinePublic,
    /// The client's capability version. Any number: whether it is served is for the caller to decide.
    pub version: u16,
    /// What to send back, before any record.
    pub response: [u8; RESPONSE_BYTES],
    /// The server's half of the channel.
    pub transport: Transport,
}

impl Responder {
    /// Makes a responder for the server's Noise key.
    pub fn new(key: &MachinePrivate) -> Self {
        Self { key: key.clone() }
    }

    /// Answers a client's initiation of exactly [`INITIATION_BYTES`] bytes.
    ///
    /// Costs about 0.2 ms of computation for a well-formed message, whoever sent it.
    pub fn respond(&self, initiation: &[u8]) -> Result<Accepted, HandshakeError> {
        let (version, payload) = parse_initiation(initiation)?;
        let prologue = prologue(version);
        let state = builder(&self.key, &prologue)?.build_responder()?;
        accept(state, version, payload)
    }
}

fn accept(
    mut state: HandshakeState,
    version: u16,
    payload: &[u8],
) -> Result<Accepted, HandshakeError> {
    state.read_message(payload, &mut [])?;
    let peer = state
        .get_remote_static()
        .and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok())
        .map(MachinePublic::from_bytes)
        .ok_or(HandshakeError::Unauthentic)?;
    let mut response = [0; RESPONSE_BYTES];
    let (header, body) = response.split_at_mut(FRAME_HEADER_BYTES);
    header.copy_from_slice(&RESPONSE_HEADER);
    state.write_message(&[], body)?;
    let (from_client, from_server) = state.dangerously_get_raw_split();
    let transport =
        Transport { sealer: Sealer::new(&from_server), opener: Opener::new(&from_client) };
    Ok(Accepted { peer, version, response, transport })
}

/// The client's end of one handshake, waiting for the server's answer.
#[derive(Debug)]
pub struct Initiator {
    state: HandshakeState,
    initiation: [u8; INITIATION_BYTES],
}

impl Initiator {
    /// Begins a handshake with the server that holds `server`, at capability version `version`.
    pub fn new(
        key: &MachinePrivate,
        server: &MachinePublic,
        version: u16,
    ) -> Result<Self, HandshakeError> {
        let prologue = prologue(version);
        let state =
            builder(key, &prologue)?.remote_public_key(server.as_bytes())?.build_initiator()?;
        Self::begin(state, version)
    }

    fn begin(mut state: HandshakeState, version: u16) -> Result<Self, HandshakeError> {
        let mut initiation = [0; INITIATION_BYTES];
        initiation[..2].copy_from_slice(&version.to_be_bytes());
        initiation[2..5].copy_from_slice(&INITIATION_HEADER);
        state.write_message(&[], &mut initiation[5..])?;
        Ok(Self { state, initiation })
    }

    /// What to send to the server.
    pub fn initiation(&self) -> &[u8; INITIATION_BYTES] {
        &self.initiation
    }

    /// Finishes with the server's whole answer, whose length [`answer_bytes`] tells from its header.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] when the answer is an error frame.
    pub fn finish(mut self, answer: &[u8]) -> Result<Transport, HandshakeError> {
        let &[message_type, high, low, ref body @ ..] = answer else {
            return Err(HandshakeError::Length { expected: RESPONSE_BYTES, got: answer.len() });
        };
        expect_length(answer_bytes([message_type, high, low])?, answer.len())?;
        if message_type == TYPE_ERROR {
            let message = String::from_utf8_lossy(body).into_owned();
            return Err(HandshakeError::Refused { message });
        }
        self.state.read_message(body, &mut [])?;
        let (from_client, from_server) = self.state.dangerously_get_raw_split();
        Ok(Transport { sealer: Sealer::new(&from_client), opener: Opener::new(&from_server) })
    }
}

/// How many bytes the server's answer to an initiation has, header included, judged by its header.
pub fn answer_bytes(header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, HandshakeError> {
    let [message_type, high, low] = header;
    let announced = FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    match message_type {
        TYPE_RESPONSE => expect_length(RESPONSE_BYTES, announced).map(|()| announced),
        TYPE_ERROR => Ok(announced),
        got => Err(HandshakeError::Type { expected: TYPE_RESPONSE, got }),
    }
}

/// The frame by which a server refuses a handshake, in the clear. `message` is for people, cut at 65,535
/// bytes; it should be a constant, so that it never repeats what a stranger sent.
pub fn error_frame(message: &str) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = vec![TYPE_ERROR];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message.as_bytes()[..usize::from(length)]);
    frame
}

/// The client's version and the Noise message of an initiation.
fn parse_initiation(initiation: &[u8]) -> Result<(u16, &[u8]), HandshakeError> {
    let initiation: &[u8; INITIATION_BYTES] = initiation.try_into().map_err(|_| {
        HandshakeError::Length { expected: INITIATION_BYTES, got: initiation.len() }
    })?;
    let [version_high, version_low, message_type, high, low, message @ ..] = initiation;
    if *message_type != TYPE_INITIATION {
        return Err(HandshakeError::Type { expected: TYPE_INITIATION, got: *message_type });
    }
    expect_length(message.len(), u16::from_be_bytes([*high, *low]).into())?;
    Ok((u16::from_be_bytes([*version_high, *version_low]), message))
}

fn expect_length(expected: usize, got: usize) -> Result<(), HandshakeError> {
    if got == expected { Ok(()) } else { Err(HandshakeError::Length { expected, got }) }
}

/// What both ends mix in first, so that nobody can change the version on its way.
fn prologue(version: u16) -> String {
    format!("Tailscale Control Protocol v{version}")
}

fn builder<'a>(key: &'a MachinePrivate, prologue: &'a str) -> Result<Builder<'a>, HandshakeError> {
    let parameters = PATTERN.parse().expect("invariant: a pattern that snow knows");
    let builder = Builder::with_resolver(parameters, dh::resolver())
        .prologue(prologue.as_bytes())?
        .local_private_key(key.expose_bytes())?;
    Ok(builder)
}

#[cfg(test)]
mod tests;
