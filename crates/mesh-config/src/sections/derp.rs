//! `derp`: relays for nodes that cannot reach each other directly, and STUN.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::finding::Report;
use crate::key::section;
use crate::sections::Config;
use crate::types::HttpUrl;

/// How often other relays' maps may be fetched at most; they belong to somebody else's server.
const UPDATE_FREQUENCY_MIN: Duration = Duration::from_mins(1);

section! {
    /// Relays for nodes that cannot reach each other directly.
    pub struct Derp {
        /// URLs of DERP maps in JSON that are offered to clients too, such as
        /// `https://controlplane.tailscale.com/derpmap/default`.
        pub urls: Vec<HttpUrl> = "derp.urls", "[]";
        /// Files with DERP maps in YAML that are offered to clients too.
        pub paths: Vec<PathBuf> = "derp.paths", "[]";
        /// Whether urls and paths are read again every `update_frequency`.
        pub auto_update_enabled: bool = "derp.auto_update_enabled", "true";
        /// How often urls and paths are read again, a duration of 1m or longer.
        pub update_frequency: Duration = "derp.update_frequency", "3h";
    }
    sections {
        /// The relay in this process.
        pub server: DerpServer;
    }
}

section! {
    /// The relay in this process.
    pub struct DerpServer {
        /// Whether this process is a relay itself, so that nodes always have one.
        pub enabled: bool = "derp.server.enabled", "true";
        /// Number of the relay's region; it replaces a region with that number from urls and paths.
        pub region_id: u16 = "derp.server.region_id", "999";
        /// Short name of the region, which clients show.
        pub region_code: String = "derp.server.region_code", "meshcontrol";
        /// Long name of the region, which clients show.
        pub region_name: String = "derp.server.region_name", "meshcontrol embedded relay";
        /// Whether only nodes of this tailnet may use the relay.
        pub verify_clients: bool = "derp.server.verify_clients", "true";
        /// Address and port of the relay's own TLS listener with a certificate that clients pin; not
        /// used with `tls_cert_path`, for then the relay answers on the public listener.
        pub listen_addr: SocketAddr = "derp.server.listen_addr", "0.0.0.0:8443";
        /// UDP address and port of STUN, by which nodes learn their public addresses.
        pub stun_listen_addr: SocketAddr = "derp.server.stun_listen_addr", "0.0.0.0:3478";
        /// Private key of the relay; made if it is missing. Default: `derp_private.key` in
        /// the data directory.
        pub private_key_path: PathBuf = "derp.server.private_key_path", "derp_private.key";
        /// Whether the relay is put into the DERP map; otherwise `derp.paths` must describe it.
        pub automatically_add_embedded_derp_region: bool = "derp.server.automatically_add_embedded_derp_region", "true";
        /// Public IPv4 address of the relay for the DERP map, for clients that cannot resolve its name.
        pub ipv4: Option<Ipv4Addr> = "derp.server.ipv4", "\"\"";
        /// Public IPv6 address of the relay for the DERP map, for clients that cannot resolve its name.
        pub ipv6: Option<Ipv6Addr> = "derp.server.ipv6", "\"\"";
    }
}

impl Derp {
    pub(crate) fn check(&self, config: &Config, report: &mut Report) {
        if self.update_frequency < UPDATE_FREQUENCY_MIN {
            report.error("derp.update_frequency", "must be 1m or longer");
        }
        if self.server.enabled {
            self.check_server(config, report);
        }
    }

    fn check_server(&self, config: &Config, report: &mut Report) {
        let server = &self.server;
        if server.region_id == 0 {
            report
                .error("derp.server.region_id", "must be 1 or more; clients take 0 for no region");
        }
        if server.private_key_path == config.noise.private_key_path {
            let message = "is noise.private_key_path too; the relay needs a key of its own";
            report.error("derp.server.private_key_path", message);
        }
        if config.tls.cert_path.is_none() && collide(server.listen_addr, config.listen_addr) {
            let message =
                "has the port of listen_addr; without tls_cert_path the relay needs its own";
            report.error("derp.server.listen_addr", message);
        }
        if !server.automatically_add_embedded_derp_region && self.paths.is_empty() {
            report.error(
                "derp.server.automatically_add_embedded_derp_region",
                "is off, so no client would find the relay; describe it in a file of derp.paths",
            );
        }
    }
}

/// Whether two sockets cannot listen on these addresses at once.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let is_same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && is_same_host
}
