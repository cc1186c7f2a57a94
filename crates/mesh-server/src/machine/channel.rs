//! A Noise channel, and how requests are read from it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh_keys::MachinePublic;
use mesh_wire::CapabilityVersion;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::Slot;

/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An authenticated channel to one machine. Clones are the same channel.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    /// The machine at the other end, proven by the handshake.
    pub(crate) machine_key: MachinePublic,
    /// What its client says it understands.
    pub(crate) version: CapabilityVersion,
    /// Where it comes from, if that is known.
    pub(crate) source: Option<IpAddr>,
    /// Its place among unclaimed connections.
    slot: Arc<Mutex<Option<Arc<Slot>>>>,
}

impl Channel {
    pub(crate) fn new(
        machine_key: MachinePublic,
        version: CapabilityVersion,
        source: Option<IpAddr>,
        slot: Option<Arc<Slot>>,
    ) -> Self {
        Self { machine_key, version, source, slot: Arc::new(Mutex::new(slot)) }
    }

    /// A node of ours speaks through it: it no longer counts as a stranger's.
    pub(crate) fn claim(&self) {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Why a request's body was not taken.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("invalid request: {0}")]
    Malformed(String),
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        (status, self.to_string()).into_response()
    }
}

/// Reads a whole body within its limits of size and time.
pub(crate) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, BodyError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, bytes_max)).await;
    read.map_err(|_| BodyError::TooSlow)?.map_err(|_| BodyError::TooLarge(bytes_max))
}

/// Reads a request. Clients do not always send a content type, so none is asked for.
pub(crate) async fn read_json<T: DeserializeOwned>(
    body: Body,
    bytes_max: usize,
) -> Result<T, BodyError> {
    let bytes = read_body(body, bytes_max).await?;
    serde_json::from_slice(&bytes).map_err(|error| BodyError::Malformed(error.to_string()))
}
