//! The DERP relay and STUN on tokio.
