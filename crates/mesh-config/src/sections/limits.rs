//! `limits`: what strangers and clients can cost.

use std::time::Duration;

use crate::finding::Report;
use crate::key::section;

section! {
    /// What strangers and clients can cost.
    pub struct Limits {
        /// Longest body of a registration, in bytes.
        pub register_body_bytes_max: usize = "limits.register_body_bytes_max", "65536";
        /// Longest body of a map request, in bytes.
        pub map_body_bytes_max: usize = "limits.map_body_bytes_max", "262144";
        /// Longest body of a request to the API, in bytes.
        pub api_body_bytes_max: usize = "limits.api_body_bytes_max", "1048576";
        /// Connections open at once; further ones are closed.
        pub connections_max: usize = "limits.connections_max", "20000";
        /// Connections open at once from one IPv4 address or one IPv6 /64; `trusted_proxies` are
        /// exempt.
        pub connections_per_ip_max: usize = "limits.connections_per_ip_max", "200";
        /// Handshakes computed at once; further ones wait. Unset: twice the number of processors.
        pub handshakes_concurrent_max: Option<usize> = "limits.handshakes_concurrent_max", "\"\"";
        /// Interactive logins that wait for approval at once.
        pub pending_logins_max: usize = "limits.pending_logins_max", "10000", also "tuning.register_cache_max_entries";
        /// Interactive logins that wait at once from one IPv4 /24 or one IPv6 /48.
        pub pending_logins_per_subnet_max: usize = "limits.pending_logins_per_subnet_max", "20";
        /// How long an interactive login may wait, a duration.
        pub pending_login_ttl: Duration = "limits.pending_login_ttl", "15m", also "tuning.register_cache_expiration";
        /// How long a client may take for TLS and the first request's header, a duration.
        pub header_timeout: Duration = "limits.header_timeout", "10s";
        /// How long a client may take for the Noise handshake, a duration.
        pub handshake_timeout: Duration = "limits.handshake_timeout", "10s";
        /// How long a client may take nothing of what it is sent before it is dropped, a duration.
        pub stall_timeout: Duration = "limits.stall_timeout", "60s";
    }
}

impl Limits {
    pub(crate) fn check(&self, report: &mut Report) {
        for (path, number) in [
            ("limits.register_body_bytes_max", self.register_body_bytes_max),
            ("limits.map_body_bytes_max", self.map_body_bytes_max),
            ("limits.api_body_bytes_max", self.api_body_bytes_max),
            ("limits.connections_max", self.connections_max),
            ("limits.connections_per_ip_max", self.connections_per_ip_max),
            ("limits.handshakes_concurrent_max", self.handshakes_concurrent_max.unwrap_or(1)),
            ("limits.pending_logins_max", self.pending_logins_max),
            ("limits.pending_logins_per_subnet_max", self.pending_logins_per_subnet_max),
        ] {
            if number == 0 {
                report.error(path, "must be 1 or more");
            }
        }
        report.refuse_zero("limits.pending_login_ttl", self.pending_login_ttl);
        report.refuse_zero("limits.header_timeout", self.header_timeout);
        report.refuse_zero("limits.handshake_timeout", self.handshake_timeout);
        report.refuse_zero("limits.stall_timeout", self.stall_timeout);
    }
}
