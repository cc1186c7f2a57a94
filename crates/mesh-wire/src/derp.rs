//! The DERP map, and the question whether a relay may serve a client.
//!
//! Source: tailscale `tailcfg/derpmap.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_keys::NodePublic;

use crate::DerpRegionId;
use crate::codec::wire_struct;

wire_struct! {
    /// The relays of a tailnet. A change makes every client rebuild its netmap and measure again.
    pub struct DerpMap {
        /// Weights for choosing a home; `None` keeps what the client has.
        pub home_params: Option<DerpHomeParams> = "HomeParams";
        /// All regions by their own id. `None` keeps what the client has.
        pub regions: Option<BTreeMap<DerpRegionId, DerpRegion>> = "Regions";
        /// Whether a server that merges maps leaves out the public one. The name is lower camel on the wire.
        pub omit_default_regions: bool = "omitDefaultRegions";
    }
}

wire_struct! {
    /// Weights for choosing a home region.
    pub struct DerpHomeParams {
        /// Factor on a region's latency, below one favours it. `None` keeps, an empty map resets.
        pub region_score: Option<BTreeMap<DerpRegionId, f64>> = "RegionScore";
    }
}

wire_struct! {
    /// Relays that are close to each other and mesh.
    pub struct DerpRegion {
        /// Equals its key in the map.
        pub region_id: DerpRegionId = "RegionID" (always);
        /// Short code, such as `fra`.
        pub region_code: String = "RegionCode" (always);
        /// Name in words.
        pub region_name: String = "RegionName" (always);
        /// Degrees north.
        pub latitude: f64 = "Latitude";
        /// Degrees east.
        pub longitude: f64 = "Longitude";
        /// The old form of `no_measure_no_home`, for clients below that gate.
        pub avoid: bool = "Avoid";
        /// Whether clients neither measure the region nor make it their home.
        pub no_measure_no_home: bool = "NoMeasureNoHome";
        /// The relays, in order of preference.
        pub nodes: Vec<DerpNode> = "Nodes" (always);
    }
}

wire_struct! {
    /// One relay.
    pub struct DerpNode {
        /// Unique in the map.
        pub name: String = "Name" (always);
        /// Its region.
        pub region_id: DerpRegionId = "RegionID" (always);
        /// Host to connect to; need not be unique.
        pub host_name: String = "HostName" (always);
        /// Name that the certificate must have, or `sha256-raw:<hex>` of a self-signed one.
        pub cert_name: String = "CertName";
        /// Address to use without DNS, or `none`.
        pub ipv4: String = "IPv4";
        /// Address to use without DNS, or `none`.
        pub ipv6: String = "IPv6";
        /// Port of STUN: zero is 3478, -1 is none.
        pub stun_port: i32 = "STUNPort";
        /// Whether there is only STUN here.
        pub stun_only: bool = "STUNOnly";
        /// Port of the relay: zero is 443.
        pub derp_port: i32 = "DERPPort";
        /// Whether the certificate is not verified.
        pub insecure_for_tests: bool = "InsecureForTests";
        /// Where tests send STUN instead.
        pub stun_test_ip: String = "STUNTestIP";
        /// Whether port 80 answers the captive-portal check.
        pub can_port_80: bool = "CanPort80";
    }
}

wire_struct! {
    /// A relay asks whether a client may use it.
    pub struct DerpAdmitClientRequest {
        /// The client's key.
        pub node_public: NodePublic = "NodePublic" (always);
        /// The client's address.
        pub source: Option<IpAddr> = "Source";
    }
}

wire_struct! {
    /// The answer to [`DerpAdmitClientRequest`].
    pub struct DerpAdmitClientResponse {
        /// Whether it may.
        pub allow: bool = "Allow" (always);
    }
}
