//! Questions that the server asks a node through its map stream.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `PingRequest`, `PingResponse`.

use std::net::IpAddr;

use crate::codec::wire_struct;
use crate::{Base64, DerpRegionId};

wire_struct! {
    /// Asks a node to ping, or to answer a request of its own little HTTP server (`c2n`).
    pub struct PingRequest {
        /// Where the answer goes: `https://` whatever the server speaks, and unlike the last one.
        pub url: String = "URL" (always);
        /// Whether to answer over Noise.
        pub url_is_noise: bool = "URLIsNoise" (always);
        /// Whether the client logs it.
        pub log: bool = "Log";
        /// Comma-separated `disco`, `TSMP`, `ICMP`, `peerapi`, or `c2n`; empty asks for a bare sign of life.
        pub types: String = "Types" (always);
        /// Whom to ping.
        pub ip: Option<IpAddr> = "IP";
        /// The HTTP/1 request of a `c2n`.
        pub payload: Base64 = "Payload";
    }
}

wire_struct! {
    /// What came of a ping, posted to [`PingRequest::url`].
    pub struct PingResponse {
        /// The kind of ping.
        pub ping_type: String = "Type" (always);
        /// Who was pinged.
        pub ip: String = "IP";
        /// Its tailnet address.
        pub node_ip: String = "NodeIP";
        /// Its name.
        pub node_name: String = "NodeName";
        /// What went wrong, or empty.
        pub err: String = "Err";
        /// Round trip in seconds.
        pub latency_seconds: f64 = "LatencySeconds";
        /// The endpoint that answered, if direct.
        pub endpoint: String = "Endpoint";
        /// The peer that relayed, with its session.
        pub peer_relay: String = "PeerRelay";
        /// The region that relayed.
        pub derp_region_id: DerpRegionId = "DERPRegionID";
        /// Its code.
        pub derp_region_code: String = "DERPRegionCode";
        /// Port of the peer's API, of a `disco` or `TSMP` ping.
        pub peer_api_port: u16 = "PeerAPIPort";
        /// Whether the address was the node's own.
        pub is_local_ip: bool = "IsLocalIP";
    }
}
