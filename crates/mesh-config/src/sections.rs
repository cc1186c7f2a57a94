//! The sections of the configuration, one file each, and [`Config`], which holds them all.
//!
//! The doc comment of each field is what operators read in `config.example.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::finding::Report;
use crate::key::section;
use crate::types::{FileMode, HttpUrl};

mod cli;
mod database;
mod derp;
mod dns;
mod limits;
mod log;
mod node;
mod policy;
mod preauth_keys;
mod prefixes;
mod tls;

pub use cli::{Cli, ServerAddress};
pub use database::{Database, DatabaseType, Postgres, Sqlite, SslMode};
pub use derp::{Derp, DerpLimits, DerpMesh, DerpServer, DerpVerify};
pub use dns::{Dns, ExtraRecord, Nameservers};
pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use node::{Ephemeral, Node};
pub use policy::{Policy, PolicyMode};
pub use preauth_keys::{Argon2Cost, PreauthKeys};
pub use prefixes::{Allocation, Prefixes};
pub use tls::Tls;

/// The longest path of a unix socket on Linux, in bytes (unix(7), without the closing NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

section! {
    /// The whole configuration.
    pub struct Config {
        /// URL under which clients reach this server, such as `https://mesh.example.com`. Unset: derived
        /// from `listen_addr`, which is enough on a LAN.
        pub server_url: Option<HttpUrl> = "server_url", "\"\"";
        /// Address and port for clients and the API. The default is every IPv4 address, so that other
        /// machines of a LAN reach the server without configuration; behind a proxy on the same machine
        /// choose `127.0.0.1:8080`, for IPv6 as well `[::]:8080`.
        pub listen_addr: SocketAddr = "listen_addr", "0.0.0.0:8080";
        /// Address and port of `/metrics` for Prometheus, and of `/debug` for admins with an API key;
        /// unencrypted, so keep it on this machine or in a private network. "" for none. If something
        /// else has the default address, the server goes on without.
        pub metrics_listen_addr: Option<SocketAddr> = "metrics_listen_addr", "127.0.0.1:9090";
        /// Addresses or prefixes of reverse proxies whose `X-Forwarded-For` and similar headers are
        /// believed.
        pub trusted_proxies: Vec<IpNet> = "trusted_proxies", "[]";
        /// Socket on which the command line on this machine is served; its permissions are the
        /// authentication. Default: `meshcontrol.sock` in the data directory.
        pub unix_socket: PathBuf = "unix_socket", "meshcontrol.sock";
        /// Permission bits of `unix_socket`, octal.
        pub unix_socket_permission: FileMode = "unix_socket_permission", "\"0770\"";
    }
    sections {
        /// Certificate of the public listener.
        pub tls: Tls;
        /// The encrypted protocol that clients speak.
        pub noise: Noise;
        /// Addresses of nodes.
        pub prefixes: Prefixes;
        /// Relays for nodes that cannot reach each other directly.
        pub derp: Derp;
        /// Lifetime of nodes.
        pub node: Node;
        /// Preauth keys.
        pub preauth_keys: PreauthKeys;
        /// Rules of who may reach whom.
        pub policy: Policy;
        /// Where everything is stored.
        pub database: Database;
        /// What is logged, and how.
        pub log: Log;
        /// What clients resolve.
        pub dns: Dns;
        /// What strangers and clients can cost.
        pub limits: Limits;
        /// The command line as a client of a remote server.
        pub cli: Cli;
    }
}

section! {
    /// The encrypted protocol that clients speak.
    pub struct Noise {
        /// Private key by which clients know this server; made if it is missing. Default:
        /// `noise_private.key` in the data directory.
        pub private_key_path: PathBuf = "noise.private_key_path", "noise_private.key";
    }
}

impl Config {
    /// Checks what no key can be checked for alone.
    pub(crate) fn check(&self, report: &mut Report) {
        self.check_server_url(report);
        if let Some(all) = self.trusted_proxies.iter().find(|net| net.prefix_len() == 0) {
            let message = format!("{all} trusts everybody; name the proxies only");
            report.error("trusted_proxies", message);
        }
        let socket_bytes = self.unix_socket.as_os_str().len();
        if socket_bytes > SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "the path {} has {socket_bytes} bytes, a socket's can have {SOCKET_PATH_BYTES_MAX}; \
                 choose a shorter one",
                self.unix_socket.display()
            );
            report.error("unix_socket", message);
        }
        self.tls.check(report);
        self.prefixes.check(report);
        self.derp.check(self, report);
        self.node.check(report);
        self.preauth_keys.check(report);
        self.policy.check(report);
        self.database.check(report);
        self.dns.check(report);
        self.limits.check(report);
        self.cli.check(report);
    }

    /// Clients put paths of their own behind the URL, and resolve names below the base domain
    /// within the tailnet, so that a server there could not be reached.
    fn check_server_url(&self, report: &mut Report) {
        let Some(url) = &self.server_url else { return };
        if url.path_and_query() != "/" {
            report.error("server_url", format!("must end after the host; use {}", url.origin()));
        }
        if !url.is_https() && self.tls.cert_path.is_some() {
            report.warning("server_url", "begins with http:// although tls_cert_path is set");
        }
        if let Some(domain) = &self.dns.base_domain
            && domain.contains(&url.host())
        {
            let message = format!(
                "the host {} lies in dns.base_domain {domain}, where clients could not reach it; \
                 choose another name for one of them",
                url.host()
            );
            report.error("server_url", message);
        }
    }
}
