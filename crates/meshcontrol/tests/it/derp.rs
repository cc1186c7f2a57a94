//! A relay by itself, as a process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use mesh_relay::{Certificate, generate_self_signed};
use mesh_server::derp_map::{DerpSource, merge};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::fake::{Run, program};
use crate::serve::http_get;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A directory with all that a relay has.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, flags: &str) -> Command {
        let mut command = program("derp");
        command.args(flags.split(' ')).current_dir(self.0.path()).envs([
            ("MESHCONTROL_DATA_DIR", "data"),
            ("MESHCONTROL_METRICS_LISTEN_ADDR", "127.0.0.1:0"),
            ("MESHCONTROL_DERP_SERVER_STUN_LISTEN_ADDR", "127.0.0.1:0"),
        ]);
        command
    }

    /// A relay that serves.
    fn start(&self, flags: &str) -> Relay<'_> {
        let mut command = self.command(flags);
        command.stdout(fs::File::create(self.path("out")).unwrap());
        command.stderr(fs::File::create(self.path("log")).unwrap());
        let mut relay = Relay { place: self, process: command.spawn().unwrap() };
        relay.until("it serves", |relay| relay.place.text("log").contains("the relay serves"));
        relay
    }
}

/// A running relay; it ends with the value.
struct Relay<'p> {
    place: &'p Place,
    process: Child,
}

impl Relay<'_> {
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(self) {
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{what}: {}",
                self.place.text("log")
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// An address in its log.
    fn address(&self, field: &str) -> SocketAddr {
        let log = self.place.text("log");
        let text = log.split(&format!("{field}=")).nth(1).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Ends it as a service manager does.
    fn stop(mut self) {
        self.signal("TERM");
        assert!(self.process.wait().unwrap().success(), "{}", self.place.text("log"));
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks over TLS that trusts only this certificate.
fn https_get(address: SocketAddr, path: &str, certificate: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn certificate() -> String {
    generate_self_signed("127.0.0.1", SystemTime::now()).unwrap()
}

const PINNED: &str = "--open --hostname 127.0.0.1 --listen 127.0.0.1:0";

#[test]
fn a_relay_with_a_pin_tells_what_clients_must_be_told() {
    let place = Place::new();
    let relay = place.start(PINNED);
    let tls = relay.address("relay.tls");
    let kept = place.text("data/derp_certificate.pem");
    assert!(https_get(tls, "/derp/probe", &kept).unwrap().starts_with("HTTP/1.1 200 "));
    let out = place.text("out");
    let yaml = &out[out.find("regions:").unwrap()..];
    let read = DerpSource::parse_sound(yaml.as_bytes()).unwrap();
    let map = merge(&[], &[read]).unwrap().regions.unwrap();
    let node = &map.values().next().unwrap().nodes[0];
    let pin = Certificate::from_pem(&kept).unwrap().pin().unwrap();
    assert_eq!((&node.cert_name, &*node.host_name), (&pin, "127.0.0.1"));
    assert_eq!(node.derp_port, i32::from(tls.port()));
    assert_eq!(node.stun_port, i32::from(relay.address("relay.stun").port()));
    relay.stop();

    let relay = place.start(&format!("{PINNED} -o json"));
    let told: Value = serde_json::from_str(&place.text("out")).unwrap();
    assert_eq!(told["pin"], pin, "it lasts");
    assert_eq!(told["derp_map"]["Regions"]["900"]["RegionCode"], "relay");
    let key = told["public_key"].as_str().unwrap();
    assert!(out.contains(key), "it lasts");
    relay.stop();
}

#[test]
fn a_relay_behind_a_proxy_speaks_plain_http() {
    let place = Place::new();
    let relay =
        place.start("--open --hostname relay.example.com --listen= --http 127.0.0.1:0 -o json");
    let http = relay.address("relay.http");
    assert_eq!(http_get(http, "/derp/probe", "").0, 200);
    assert_eq!(http_get(http, "/derp", "").0, 426);
    assert_eq!(http_get(http, "/generate_204", "").0, 204);
    let told: Value = serde_json::from_str(&place.text("out")).unwrap();
    let node = &told["derp_map"]["Regions"]["900"]["Nodes"][0];
    assert_eq!((&node["DERPPort"], &node["CertName"]), (&443.into(), &Value::Null));
    assert_eq!(node["HostName"], "relay.example.com");
    relay.stop();
}

#[test]
fn a_renewed_certificate_is_taken_in_and_a_bad_one_is_not() {
    let place = Place::new();
    let (first, second) = (certificate(), certificate());
    fs::write(place.path("both.pem"), &first).unwrap();
    let mut relay = place.start(&format!("{PINNED} --cert both.pem --key both.pem"));
    let tls = relay.address("relay.tls");
    let shows = |certificate: &str| https_get(tls, "/derp/probe", certificate).is_ok();
    assert!(shows(&first) && !shows(&second));
    assert!(!place.path("data/derp_certificate.pem").exists(), "one is enough");

    fs::write(place.path("both.pem"), "-----BEGIN").unwrap();
    relay.signal("HUP");
    relay.until("it is told", |relay| relay.place.text("log").contains("last good certificate"));
    assert!(shows(&first));

    fs::write(place.path("both.pem"), &second).unwrap();
    relay.signal("HUP");
    relay.until("it is taken in", |_| shows(&second));
    assert!(!shows(&first));
    relay.stop();
}

/// The metrics of relays that ask who may use them, in one way each.
pub(crate) fn expositions() -> [String; 2] {
    ["--verify-url http://127.0.0.1:1/", "--config relay.yaml"].map(|way| {
        let place = Place::new();
        let config = "derp: {server: {verify: {control_socket: control.sock}}}";
        fs::write(place.path("relay.yaml"), config).unwrap();
        let relay = place.start(&format!("{way} --hostname 127.0.0.1 --listen 127.0.0.1:0"));
        let (status, text) = http_get(relay.address("metrics.listen"), "/metrics", "");
        assert_eq!(status, 200);
        text
    })
}

#[test]
fn the_operator_sees_how_it_is() {
    let place = Place::new();
    let relay = place.start(PINNED);
    let metrics = relay.address("metrics.listen");
    let (status, ready) = http_get(metrics, "/readyz", "");
    assert_eq!(status, 200, "{ready}");
    assert_eq!(http_get(metrics, "/livez", "").0, 200);
    let (_, exposition) = http_get(metrics, "/metrics", "");
    assert!(exposition.contains("meshcontrol_derp_clients{home=\"true\"} 0"), "{exposition}");
    let (status, overview) = http_get(metrics, "/debug/overview", "");
    let overview: Value = serde_json::from_str(&overview).unwrap();
    assert_eq!((status, &overview["clients"]), (200, &0.into()));
    let (status, check) = http_get(metrics, "/debug/check", "");
    assert_eq!(status, 200, "{check}");
    relay.stop();
}

#[test]
fn a_relay_that_makes_no_sense_does_not_start() {
    let place = Place::new();
    let refuses = |flags: &str, what: &str| {
        let run = Run::from(place.command(flags).output().unwrap());
        assert_eq!(run.code, 1, "{flags}");
        assert!(run.err.contains(what), "{flags}: {}", run.err);
    };
    refuses("--hostname 127.0.0.1 --listen 127.0.0.1:0", "--verify-url https://HOST/verify");
    refuses("--open --listen=", "the relay has no door");
    refuses("--open --listen 127.0.0.1:0 --cert no.pem --key no.pem", "no.pem: No such file");
    refuses("--open --hostname https://x", "is not a host such as");
}
