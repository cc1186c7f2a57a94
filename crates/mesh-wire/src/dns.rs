//! DNS settings of a node.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `DNSConfig`, `DNSRecord`; `types/dnstype`, `Resolver`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::codec::wire_struct;

wire_struct! {
    /// All DNS settings of a node; always complete, never a delta.
    pub struct DnsConfig {
        /// Global name servers; any means that the node's own are overridden.
        pub resolvers: Vec<Resolver> = "Resolvers";
        /// Split DNS: suffix to its name servers. None of them: only `extra_records` and peers answer.
        pub routes: BTreeMap<String, Vec<Resolver>> = "Routes";
        /// Used when an exit node without DNS is in use and `resolvers` is empty.
        pub fallback_resolvers: Vec<Resolver> = "FallbackResolvers";
        /// Search domains without trailing dot, the tailnet's first.
        pub domains: Vec<String> = "Domains";
        /// Whether MagicDNS is on.
        pub proxied: bool = "Proxied";
        /// Names that the node may get certificates for.
        pub cert_domains: Vec<String> = "CertDomains";
        /// Records besides those of the peers.
        pub extra_records: Vec<DnsRecord> = "ExtraRecords";
        /// Suffixes that the node, as exit node, does not answer for others; with a leading dot what is below.
        pub exit_node_filtered_set: Vec<String> = "ExitNodeFilteredSet";
    }
}

wire_struct! {
    /// A name server.
    pub struct Resolver {
        /// Address, or `https://` URL of a provider that clients know, or `http://` URL in the tailnet.
        pub addr: String = "Addr";
        /// Suggested addresses of a server that `addr` names by host.
        pub bootstrap_resolution: Vec<IpAddr> = "BootstrapResolution";
        /// Whether to use it even with an exit node.
        pub use_with_exit_node: bool = "UseWithExitNode";
    }
}

wire_struct! {
    /// One DNS record.
    pub struct DnsRecord {
        /// Full name; a trailing dot is optional.
        pub name: String = "Name" (always);
        /// `A`, `AAAA` or empty for whichever fits `value`; clients ignore others.
        pub record_type: String = "Type";
        /// An address.
        pub value: String = "Value" (always);
    }
}
