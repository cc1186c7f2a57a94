//! The ts2021 handshake and record layer: bytes in, bytes out.
//!
//! A client opens a channel with an initiation message that the server's [`Responder`] answers; both then
//! hold a [`Transport`], whose [`Sealer`] and [`Opener`] turn a byte stream into encrypted records and
//! back. The first bytes inside may be an [early payload](early_payload), then HTTP/2 follows. Sockets,
//! timeouts and what is said inside the channel are left to others.
//!
//! Source: tailscale `control/controlbase` and `control/ts2021`; the Noise specification, pattern IK.

mod dh;
mod early;
mod handshake;
mod record;

pub use early::{EARLY_PAYLOAD_BYTES_MAX, Early, EarlyError, early_payload, parse_early_payload};
pub use handshake::{
    Accepted, FRAME_HEADER_BYTES, HandshakeError, INITIATION_BYTES, Initiator, RESPONSE_BYTES,
    Responder, answer_bytes, error_frame,
};
pub use record::{
    Opener, RECORD_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX, RecordError, Sealer, Transport,
};
