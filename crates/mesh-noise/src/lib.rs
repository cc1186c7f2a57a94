//! The ts2021 handshake and record layer: bytes in, bytes out.
