//! The relay as its clients meet it: over an in-memory stream where time is to be paused, else over TLS.

mod client;
mod delivery;
mod limits;
mod stun;
mod tls;
