//! The relay as its clients meet it: over an in-memory stream where time is to be paused, else over TLS.

mod admission;
mod client;
mod delivery;
mod doors;
mod hostile;
mod limits;
mod mesh;
mod stun;
mod tls;
mod websocket;
