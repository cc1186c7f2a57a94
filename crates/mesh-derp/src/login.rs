//! Login: the relay greets with its key, the client answers with its own and a sealed [`ClientInfo`], the
//! relay ends with a sealed [`ServerInfo`].
//!
//! That the client's box opens proves that it holds the private half of its node key. Whether that key may
//! use the relay is for the caller to say. Nonces are passed in: they must be random.
//!
//! Source: tailscale `derp/derpserver/derpserver.go`, `accept`; `derp/derp_client.go`.

use std::net::SocketAddr;

use mesh_keys::{DerpPrivate, KEY_BYTES, MeshKey, NodePrivate, NodePublic};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PROTOCOL_VERSION;
use crate::frame::{
    FrameError, ServerFrame, frame_type, peek_header, put_frame, split_key, take_raw,
};
use crate::nacl::{Channel, NONCE_BYTES, SEAL_BYTES};
use crate::peer_present::PeerPresent;
use crate::token_bucket::Rate;

/// Longest payload of a client's login frame, in bytes. Stock clients send about 150. Go's relay takes 256 KiB, which
/// thousands at once that do not log in could have us hold.
const CLIENT_INFO_BYTES_MAX: usize = 16 << 10;

/// Most that a rate is told as: the Rust client reads 32 bits.
const TOLD_MAX: u64 = i32::MAX as u64;

/// Why a login came to nothing.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The first frame is of another type than a login's.
    #[error("frame of type {frame_type:#04x} before login")]
    UnexpectedFrame {
        /// The type as it stands in the header.
        frame_type: u8,
    },
    /// The login frame is too short or too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side's key is the all-zero key or another with which no secret can be agreed on.
    #[error("key of low order")]
    LowOrderKey,
    /// The box was not sealed by who it says, or not for us.
    #[error("cannot open the sealed part")]
    Box,
    /// The box holds something else than it should.
    #[error("cannot read the sealed part")]
    Json(#[source] serde_json::Error),
}

/// What a client tells the relay about itself.
///
/// Unknown fields are ignored. The Rust client writes all names in another form and with them a `mesh_key`
/// of `none`, which therefore says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// By which it is of the relay's mesh, if the relay has the same. A malformed one is the end of the login.
    #[serde(
        rename = "meshKey",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "MeshKey::deserialize_field"
    )]
    pub mesh_key: Option<MeshKey>,
    /// The protocol version of the client.
    pub version: u32,
    /// Whether the client answers pings.
    #[serde(rename = "CanAckPings")]
    pub can_ack_pings: bool,
    /// Whether the client only measures the relay.
    #[serde(rename = "IsProber", skip_serializing_if = "std::ops::Not::not")]
    pub is_prober: bool,
}

/// What a relay tells a client about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// The protocol version of the relay.
    pub version: u32,
    /// Bytes a second, frames included, that the relay will take from the client. Zero: it does not say.
    #[serde(rename = "TokenBucketBytesPerSecond", skip_serializing_if = "is_zero")]
    pub token_bucket_bytes_per_second: u64,
    /// Bytes that may be sent beyond that rate in one go. Zero: it does not say.
    #[serde(rename = "TokenBucketBytesBurst", skip_serializing_if = "is_zero")]
    pub token_bucket_bytes_burst: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The relay's side of every login: its keys. One serves all clients.
#[derive(Debug)]
pub struct ServerLogin {
    private: DerpPrivate,
    public: NodePublic,
    mesh_key: Option<MeshKey>,
}

impl ServerLogin {
    /// Logs clients in to the relay with this key, which is of the mesh with that key or of none.
    pub fn new(private: DerpPrivate, mesh_key: Option<MeshKey>) -> Self {
        let public = private.public();
        Self { private, public, mesh_key }
    }

    /// What the relay logs in with to the other relays of its mesh, if it has one.
    pub fn as_client(&self) -> Option<(NodePrivate, &MeshKey)> {
        let private = NodePrivate::from_bytes(*self.private.expose_bytes());
        Some((private, self.mesh_key.as_ref()?))
    }

    /// The relay's public key, as clients get to see it.
    pub fn public_key(&self) -> NodePublic {
        self.public
    }

    /// Appends the greeting to `out`: the first frame of a connection, sent without being asked for.
    pub fn encode_greeting(&self, out: &mut Vec<u8>) {
        ServerFrame::ServerKey(self.public).encode(out);
    }

    /// Takes the client's login off the front of `input`.
    ///
    /// Returns `Ok(None)` and leaves `input` alone while bytes are missing, at most 16 KiB of them.
    pub fn handle_input(&self, input: &mut &[u8]) -> Result<Option<Login>, LoginError> {
        let Some((frame_type, bytes)) = peek_header(input) else {
            return Ok(None);
        };
        if frame_type != frame_type::CLIENT_INFO {
            return Err(LoginError::UnexpectedFrame { frame_type });
        }
        let lengths = KEY_BYTES + SEAL_BYTES..=CLIENT_INFO_BYTES_MAX;
        let Some(frame) = take_raw(input, frame_type, bytes, lengths)? else {
            return Ok(None);
        };
        let (key, sealed) = split_key(frame_type, frame.payload)?;
        let channel =
            Channel::new(self.private.expose_bytes(), &key).ok_or(LoginError::LowOrderKey)?;
        let message = channel.open(sealed).ok_or(LoginError::Box)?;
        let info: ClientInfo = serde_json::from_slice(&message).map_err(LoginError::Json)?;
        let is_mesh = info.mesh_key.is_some() && info.mesh_key == self.mesh_key;
        Ok(Some(Login { key, info, is_mesh, channel }))
    }
}

/// A client that has proven its key.
pub struct Login {
    /// The client's node key.
    pub key: NodePublic,
    /// What it said about itself.
    pub info: ClientInfo,
    /// Whether it has the relay's mesh key. With another one it is a client like any other.
    pub is_mesh: bool,
    channel: Channel,
}

impl Login {
    /// The client that connects from `addr` as those are told of it who watch the relay.
    pub fn peer_present(&self, addr: SocketAddr) -> PeerPresent {
        let of = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags =
            of(self.is_mesh, PeerPresent::MESH_PEER) | of(self.info.is_prober, PeerPresent::PROBER);
        let flags = if flags == 0 { PeerPresent::REGULAR } else { flags };
        PeerPresent { key: self.key, addr, flags }
    }

    /// Appends the frame that ends the login to `out`. Clients expect nothing else before it.
    ///
    /// Go's client keeps to the `rate` of bytes that it is told, by dropping packets. That is better for it than to be
    /// held back: what it sends over one connection would all be late then, its pings too.
    pub fn encode_server_info(
        &self,
        rate: Option<Rate>,
        nonce: [u8; NONCE_BYTES],
        out: &mut Vec<u8>,
    ) {
        let told = |bytes: fn(Rate) -> u64| rate.map_or(0, bytes).min(TOLD_MAX);
        let info = ServerInfo {
            version: PROTOCOL_VERSION,
            token_bucket_bytes_per_second: told(|rate| rate.per_second),
            token_bucket_bytes_burst: told(|rate| rate.burst),
        };
        ServerFrame::ServerInfo(&seal_json(&self.channel, nonce, &info)).encode(out);
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("key", &self.key)
            .field("info", &self.info)
            .field("is_mesh", &self.is_mesh)
            .finish_non_exhaustive()
    }
}

/// The client's side of one login, from the moment on that it knows the relay's key: by the greeting
/// ([`ServerFrame::ServerKey`]) or by the relay's TLS certificate.
pub struct ClientLogin {
    public: NodePublic,
    channel: Channel,
}

impl ClientLogin {
    /// Logs the node with this key in to the relay with that one.
    ///
    /// # Errors
    /// [`LoginError::LowOrderKey`], for nothing can be sealed to such a relay.
    pub fn new(private: &NodePrivate, relay: &NodePublic) -> Result<Self, LoginError> {
        let channel = Channel::new(private.expose_bytes(), relay).ok_or(LoginError::LowOrderKey)?;
        Ok(Self { public: private.public(), channel })
    }

    /// Appends the login frame to `out`.
    pub fn encode_client_info(
        &self,
        nonce: [u8; NONCE_BYTES],
        info: &ClientInfo,
        out: &mut Vec<u8>,
    ) {
        let sealed = seal_json(&self.channel, nonce, info);
        put_frame(out, frame_type::CLIENT_INFO, &[self.public.as_bytes(), &sealed]);
    }

    /// Opens what [`ServerFrame::ServerInfo`] carries.
    pub fn open_server_info(&self, sealed: &[u8]) -> Result<ServerInfo, LoginError> {
        let message = self.channel.open(sealed).ok_or(LoginError::Box)?;
        serde_json::from_slice(&message).map_err(LoginError::Json)
    }
}

impl std::fmt::Debug for ClientLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientLogin").field("public", &self.public).finish_non_exhaustive()
    }
}

fn seal_json(channel: &Channel, nonce: [u8; NONCE_BYTES], message: &impl Serialize) -> Vec<u8> {
    let message =
        serde_json::to_vec(message).expect("invariant: numbers, booleans and text are JSON");
    channel.seal(nonce, &message)
}

#[cfg(test)]
mod tests;
