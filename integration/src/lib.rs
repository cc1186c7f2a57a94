//! Real Tailscale clients against the real server.
