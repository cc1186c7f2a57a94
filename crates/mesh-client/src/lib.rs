//! Control client: dial a control server, register, follow a map stream.
//!
//! A [`Dialer`] knows a server; [`ControlClient::connect`] opens one Noise channel with HTTP/2 inside, over which
//! everything is asked; [`MapStream`] yields the messages of a map stream, long ones in parts if need be, and a [`Netmap`]
//! is what they add up to. When to try again, timeouts after the dial and what to do with a netmap are the caller's. Whatever a server can make
//! grow is bounded here.
//!
//! It serves the bundled node, the load harness and the tests, which judge the server by it.

mod backoff;
mod client;
mod dial;
mod early;
mod map_stream;
mod message;
mod netmap;
mod scan;
mod url;

pub use backoff::backoff;
pub use client::{BODY_BYTES_MAX, ControlClient, RequestError};
pub use dial::{DIAL_TIMEOUT, DialError, Dialer, KEY_BODY_BYTES_MAX};
pub use map_stream::{
    FRAME_BYTES_MAX, MapPart, MapParts, MapStream, MapStreamError, NAMED_PEERS_MAX, REST_BYTES_MAX,
};
pub use message::{Message, Piece};
pub use netmap::{Applied, Netmap};
pub use scan::{PeerSink, Place, ScanError, Scanner};
pub use url::{ControlUrl, ControlUrlError};
