//! `derp.server`: the relay in `meshcontrol serve`, and `meshcontrol derp`, which is one by itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::finding::{Origin, Problems, Report};
use crate::key::section;
use crate::provenance::Setting;
use crate::sections::Config;
use crate::types::{Host, HttpUrl};

section! {
    /// The relay in this process.
    pub struct DerpServer {
        /// Whether `meshcontrol serve` is a relay too, so that nodes always have one.
        pub enabled: bool = "derp.server.enabled", "true";
        /// Name or address by which clients reach the relay. Unset: the host of `server_url`; of `meshcontrol
        /// derp` the address of this machine, which is enough on a LAN.
        pub hostname: Option<Host> = "derp.server.hostname", "\"\"";
        /// Number of the relay's region; it replaces a region with that number from urls and paths.
        /// `meshcontrol derp` takes 900 for this default, as it is not the region of the control server.
        pub region_id: u16 = "derp.server.region_id", "999";
        /// Short name of the region, which clients show.
        pub region_code: String = "derp.server.region_code", "meshcontrol";
        /// Long name of the region, which clients show.
        pub region_name: String = "derp.server.region_name", "meshcontrol embedded relay";
        /// Whether only nodes of this tailnet may use the relay; of `meshcontrol derp`, only those that
        /// `derp.server.verify` knows.
        pub verify_clients: bool = "derp.server.verify_clients", "true";
        /// Address and port of the relay's own TLS listener, for IPv6 as well `[::]:8443`; "" for none.
        /// In `meshcontrol serve` not used with `tls_cert_path`, for then the relay answers on the public
        /// listener, unless it has a `derp.server.tls_cert_path`.
        pub listen_addr: Option<SocketAddr> = "derp.server.listen_addr", "0.0.0.0:8443";
        /// Certificate chain in PEM of the relay's TLS listener. It is read again when it changes, looked at
        /// every minute and on SIGHUP. Unset: one of our own in the data directory, which clients pin.
        pub tls_cert_path: Option<PathBuf> = "derp.server.tls_cert_path", "\"\"";
        /// Private key of that certificate in PEM.
        pub tls_key_path: Option<PathBuf> = "derp.server.tls_key_path", "\"\"";
        /// Address and port where the relay speaks plain http: for a proxy in front that does TLS, or port 80
        /// for the clients' check for captive portals.
        pub http_listen_addr: Option<SocketAddr> = "derp.server.http_listen_addr", "\"\"";
        /// UDP address and port of STUN, by which nodes learn their public addresses, for IPv6 as well
        /// `[::]:3478`; "" for none.
        pub stun_listen_addr: Option<SocketAddr> = "derp.server.stun_listen_addr", "0.0.0.0:3478";
        /// Private key of the relay; made if it is missing. Default: `derp_private.key` in
        /// the data directory.
        pub private_key_path: PathBuf = "derp.server.private_key_path", "derp_private.key";
        /// Whether the relay is put into the DERP map; otherwise `derp.paths` must describe it.
        pub automatically_add_embedded_derp_region: bool = "derp.server.automatically_add_embedded_derp_region", "true";
        /// Public IPv4 address of the relay for the DERP map, for clients that cannot resolve its name.
        pub ipv4: Option<Ipv4Addr> = "derp.server.ipv4", "\"\"";
        /// Public IPv6 address of the relay for the DERP map, for clients that cannot resolve its name.
        pub ipv6: Option<Ipv6Addr> = "derp.server.ipv6", "\"\"";
        /// Over how long a relay that stops spreads the ends of its connections, a duration of at most 1m, so
        /// that its clients do not all log in elsewhere at once; few clients are let go sooner.
        pub drain_timeout: Duration = "derp.server.drain_timeout", "5s";
    }
    sections {
        /// Who may use a relay that runs by itself.
        pub verify: DerpVerify;
        /// Relays of the same region.
        pub mesh: DerpMesh;
        /// What strangers and clients can cost the relay.
        pub limits: DerpLimits;
    }
}

section! {
    /// Who may use a relay that runs by itself: one of the first three says it.
    pub struct DerpVerify {
        /// URL of a control server of this kind, without a path. The relay follows its list of nodes: a login is
        /// answered from memory, and a node that is deleted or expires is cut at once. Wants `api_key_path`.
        pub control_url: Option<HttpUrl> = "derp.server.verify.control_url", "\"\"";
        /// The same for a control server on this machine: its `unix_socket`.
        pub control_socket: Option<PathBuf> = "derp.server.verify.control_socket", "\"\"";
        /// URL of any control server that is asked at each login whether a node may use the relay, such as
        /// `https://mesh.example.com/verify`.
        pub url: Option<HttpUrl> = "derp.server.verify.url", "\"\"";
        /// File with an API key of the server at `control_url`.
        pub api_key_path: Option<PathBuf> = "derp.server.verify.api_key_path", "\"\"";
        /// Whether every node may use the relay while nobody can be asked about it.
        pub fail_open: bool = "derp.server.verify.fail_open", "false";
    }
}

section! {
    /// Relays of the same region: what a client sends to one of them reaches clients of the others.
    pub struct DerpMesh {
        /// File with the key that all relays of the mesh share: 64 hexadecimal digits, made by
        /// `openssl rand -hex 32`. Unset: no mesh.
        pub key_path: Option<PathBuf> = "derp.server.mesh.key_path", "\"\"";
        /// The other relays, each `HOST`, `HOST:PORT`, or with the name to connect to instead,
        /// `HOST:PORT/DIAL-HOST`; behind a space the pin of a certificate of its own, `sha256-raw:` and 64
        /// digits. This relay may be among them, so that all can have the same list.
        pub with: Vec<String> = "derp.server.mesh.with", "[]";
    }
}

section! {
    /// What strangers and clients can cost the relay.
    pub struct DerpLimits {
        /// Connections that have not logged in at once; beyond, the oldest one of the address with most is cut.
        pub pre_login_max: usize = "derp.server.limits.pre_login_max", "8192";
        /// Connections a second that are accepted; further ones are closed at once. Unset: no limit.
        pub accepts_per_second: Option<u32> = "derp.server.limits.accepts_per_second", "\"\"";
        /// Connections that may come at once beside that rate. Unset: those of one second.
        pub accept_burst: Option<u32> = "derp.server.limits.accept_burst", "\"\"";
        /// Bytes a second that are taken from one client, 16384 or more; one that sends more is read later, and
        /// nothing is dropped. Unset: no limit.
        pub client_bytes_per_second: Option<u32> = "derp.server.limits.client_bytes_per_second", "\"\"";
        /// Bytes of one client that may come at once beside that rate, 65568 or more. Unset: those of one
        /// second.
        pub client_burst_bytes: Option<u32> = "derp.server.limits.client_burst_bytes", "\"\"";
        /// How long a client may take in nothing of what waits for it, 500ms to 1m; then it is cut. Other relays of the
        /// mesh have 30 seconds.
        pub write_timeout: Duration = "derp.server.limits.write_timeout", "2s";
    }
}

/// The key that opens a relay.
const VERIFY_CLIENTS: &str = "derp.server.verify_clients";

/// The slowest that a client can be told to be: what one read brings is then paid for in four seconds.
const CLIENT_BYTES_PER_SECOND_MIN: u32 = 16 << 10;

/// The longest frame that a client may send: a smaller burst would never let it through.
const CLIENT_BURST_BYTES_MIN: u32 = 65_568;

/// How long a client may be told to have for taking in what waits for it: a lost packet alone costs a round trip, and what waits
/// is stale soon.
const WRITE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(1);

/// How long a relay that stops may take at most.
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_mins(1);

impl DerpServer {
    /// Checks what is wrong in `meshcontrol serve` and `meshcontrol derp` alike, then what is in the former.
    pub(super) fn check(&self, config: &Config, report: &mut Report) {
        self.check_numbers(report);
        self.check_files(config, report);
        if self
            .listen_addr
            .is_some_and(|tls| self.http_listen_addr.is_some_and(|http| collide(tls, http)))
        {
            report.error("derp.server.http_listen_addr", "has the port of derp.server.listen_addr");
        }
        self.verify.check(report);
        self.limits.check(report);
        if self.enabled {
            self.check_embedded(config, report);
        }
    }

    /// Checks what is wrong in `meshcontrol derp` only: who may use the relay. `settings` are those of this configuration;
    /// a flag may open a relay that a file has closed, and nothing else may.
    ///
    /// # Errors
    /// When nobody says who may use the relay, or what is said contradicts itself.
    pub fn check_alone(&self, settings: &[Setting]) -> Result<(), Problems> {
        let mut report = Report::new(None);
        for setting in settings {
            report.give(setting.path, setting.origin.clone());
        }
        let is_flag = |setting: &Setting| matches!(setting.origin, Origin::Flag { .. });
        let is_opened_by_flag =
            settings.iter().any(|setting| setting.path == VERIFY_CLIENTS && is_flag(setting));
        match (self.verify_clients, self.verify.given().next()) {
            (false, Some(named)) if !is_opened_by_flag => refuse_open(named, &mut report),
            (true, None) => report.error(
                "derp.server.verify",
                "nobody says who may use the relay: name a control server here or with --verify-url \
                 https://HOST/verify, or serve everybody with --open",
            ),
            (true, Some(_)) | (false, _) => {}
        }
        report.finish(()).map(|_| ())
    }

    fn check_numbers(&self, report: &mut Report) {
        if self.region_id == 0 {
            report
                .error("derp.server.region_id", "must be 1 or more; clients take 0 for no region");
        }
        if self.drain_timeout > DRAIN_TIMEOUT_MAX {
            report.error("derp.server.drain_timeout", "must be 1m or shorter");
        }
    }

    fn check_files(&self, config: &Config, report: &mut Report) {
        if self.private_key_path == config.noise.private_key_path {
            let message = "is noise.private_key_path too; the relay needs a key of its own";
            report.error("derp.server.private_key_path", message);
        }
        match (&self.tls_cert_path, &self.tls_key_path) {
            (Some(_), None) => {
                let message = "is set without derp.server.tls_key_path; set both";
                report.error("derp.server.tls_cert_path", message);
            }
            (None, Some(_)) => {
                let message = "is set without derp.server.tls_cert_path; set both";
                report.error("derp.server.tls_key_path", message);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.mesh.key_path.is_none() && !self.mesh.with.is_empty() {
            let message =
                "is set without derp.server.mesh.key_path, by which relays know each other";
            report.error("derp.server.mesh.with", message);
        }
    }

    fn check_embedded(&self, config: &Config, report: &mut Report) {
        let own = [
            ("derp.server.listen_addr", self.own_listen_addr(config)),
            ("derp.server.http_listen_addr", self.http_listen_addr),
        ];
        for (path, address) in own {
            if address.is_some_and(|address| collide(address, config.listen_addr)) {
                report.error(path, "has the port of listen_addr; the relay needs its own");
            }
        }
        match self.verify.given().next() {
            Some(named) if !self.verify_clients => refuse_open(named, report),
            Some(named) => report.warning(
                named,
                "is for meshcontrol derp; meshcontrol serve knows its nodes itself",
            ),
            None => {}
        }
        let answers_https = config.server_url.as_ref().is_some_and(HttpUrl::is_https);
        if self.listen_addr.is_none() && config.tls.cert_path.is_none() && !answers_https {
            let message =
                "is \"\", and server_url is not https://, so no client could reach the relay";
            report.error("derp.server.listen_addr", message);
        }
        if !self.automatically_add_embedded_derp_region && config.derp.paths.is_empty() {
            report.error(
                "derp.server.automatically_add_embedded_derp_region",
                "is off, so no client would find the relay; describe it in a file of derp.paths",
            );
        }
    }

    /// The address of the TLS listener that the relay in `meshcontrol serve` has of its own; `None` while the public
    /// listener is its door.
    pub fn own_listen_addr(&self, config: &Config) -> Option<SocketAddr> {
        let answers_there = config.tls.cert_path.is_some() && self.tls_cert_path.is_none();
        self.listen_addr.filter(|_| !answers_there)
    }
}

impl DerpVerify {
    /// The keys of those that are to be asked; more than one is too many.
    fn given(&self) -> impl Iterator<Item = &'static str> + use<> {
        let given = [
            ("derp.server.verify.control_url", self.control_url.is_some()),
            ("derp.server.verify.control_socket", self.control_socket.is_some()),
            ("derp.server.verify.url", self.url.is_some()),
        ];
        given.into_iter().filter_map(|(path, is_given)| is_given.then_some(path))
    }

    fn check(&self, report: &mut Report) {
        let mut given = self.given();
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            report.error(second, format!("is set beside {first}; choose one of them"));
        }
        if self.control_url.as_ref().is_some_and(|url| url.path_and_query() != "/") {
            let message = "must have no path; the relay knows where the list of nodes is";
            report.error("derp.server.verify.control_url", message);
        }
        match (&self.control_url, &self.api_key_path) {
            (Some(_), None) => {
                let message = "is set without derp.server.verify.api_key_path; set both";
                report.error("derp.server.verify.control_url", message);
            }
            (None, Some(_)) => {
                let message = "is for derp.server.verify.control_url, which is not set";
                report.error("derp.server.verify.api_key_path", message);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

impl DerpLimits {
    fn check(&self, report: &mut Report) {
        for (path, is_zero) in [
            ("derp.server.limits.pre_login_max", self.pre_login_max == 0),
            ("derp.server.limits.accepts_per_second", self.accepts_per_second == Some(0)),
            ("derp.server.limits.accept_burst", self.accept_burst == Some(0)),
        ] {
            if is_zero {
                report.error(path, "must be 1 or more");
            }
        }
        for (path, bytes, least) in [
            (
                "derp.server.limits.client_bytes_per_second",
                self.client_bytes_per_second,
                CLIENT_BYTES_PER_SECOND_MIN,
            ),
            (
                "derp.server.limits.client_burst_bytes",
                self.client_burst_bytes,
                CLIENT_BURST_BYTES_MIN,
            ),
        ] {
            if bytes.is_some_and(|bytes| bytes < least) {
                report.error(path, format!("must be {least} or more"));
            }
        }
        for (path, is_vain, rate) in [
            (
                "derp.server.limits.accept_burst",
                self.accept_burst.is_some() && self.accepts_per_second.is_none(),
                "derp.server.limits.accepts_per_second",
            ),
            (
                "derp.server.limits.client_burst_bytes",
                self.client_burst_bytes.is_some() && self.client_bytes_per_second.is_none(),
                "derp.server.limits.client_bytes_per_second",
            ),
        ] {
            if is_vain {
                report.error(
                    path,
                    format!("is set without {rate}, beside which it counts; set both"),
                );
            }
        }
        if !WRITE_TIMEOUT.contains(&self.write_timeout) {
            report.error("derp.server.limits.write_timeout", "must be 500ms to 1m");
        }
    }
}

/// Refuses a relay that is open beside the key `named`, by which somebody meant it to be closed.
fn refuse_open(named: &str, report: &mut Report) {
    let message = format!("is false, but {named} names who may use the relay; remove one of them");
    report.error(VERIFY_CLIENTS, message);
}

/// Whether two sockets cannot listen on these addresses at once.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let is_same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && is_same_host
}
