//! DERP frames, login and relay decisions: bytes in, actions out.
