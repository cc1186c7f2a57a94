//! From the configuration to what the parts want to know.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_config::sections::{self, DatabaseType, ExtraRecord, SslMode};
use mesh_config::{Config, Nameserver, Secret};
use mesh_db::{Options, PostgresOptions};
use mesh_netmap::{MapContext, magic_dns_routes};
use mesh_server::{BodyLimits, Slots, Timeouts};
use mesh_state::{Allocation, LoginLimits, Settings};
use mesh_wire::{DerpMap, DnsConfig, DnsRecord, Resolver};
use rustls::ServerConfig;

/// Clients that lost their server are back within their backoff of half a minute.
const RESTART_GRACE: Duration = Duration::from_mins(1);

/// What the state decides by.
pub(crate) fn state(config: &Config) -> Settings {
    Settings {
        node_expiry: (config.node.expiry > Duration::ZERO).then_some(config.node.expiry),
        ephemeral_timeout: config.node.ephemeral.inactivity_timeout,
        revoked_key_retention: config.preauth_keys.revoked_retention,
        restart_grace: RESTART_GRACE,
        prefix_v4: config.prefixes.v4,
        prefix_v6: config.prefixes.v6,
        allocation: match config.prefixes.allocation {
            sections::Allocation::Sequential => Allocation::Sequential,
            sections::Allocation::Random => Allocation::Random,
        },
        logins: LoginLimits {
            pending_max: config.limits.pending_logins_max,
            per_subnet_max: config.limits.pending_logins_per_subnet_max,
            lifetime: config.limits.pending_login_ttl,
        },
    }
}

/// Largest request bodies.
pub(crate) fn bodies(config: &Config) -> BodyLimits {
    let limits = &config.limits;
    BodyLimits {
        register: limits.register_body_bytes_max,
        map: limits.map_body_bytes_max,
        api: limits.api_body_bytes_max,
    }
}

/// Handshakes that are computed at once; by default two for each core, which keeps all of them busy.
pub(crate) fn handshakes(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.limits.handshakes_concurrent_max.unwrap_or_else(|| 2 * cores())
}

/// How long channels wait for their clients.
pub(crate) fn timeouts(config: &Config) -> Timeouts {
    let limits = &config.limits;
    Timeouts { first_request: limits.handshake_timeout, stall: limits.stall_timeout }
}

/// Connections that may wait to be claimed.
pub(crate) fn slots(config: &Config) -> Slots {
    Slots::new(config.limits.connections_max, config.limits.connections_per_ip_max)
}

/// Where everything is stored.
pub(crate) fn database(config: &Config) -> Options {
    let sqlite = &config.database.sqlite;
    match config.database.engine {
        DatabaseType::Sqlite => Options::Sqlite {
            path: sqlite.path.clone(),
            write_ahead_log: sqlite.write_ahead_log,
            wal_autocheckpoint: sqlite.wal_autocheckpoint,
        },
        DatabaseType::Postgres => Options::Postgres(postgres(&config.database.postgres)),
    }
}

fn postgres(settings: &sections::Postgres) -> PostgresOptions {
    if let Some(url) = &settings.url {
        return PostgresOptions::Url(url.expose().to_owned());
    }
    PostgresOptions::Parts {
        host: settings.host.clone().unwrap_or_default(),
        port: Some(settings.port),
        name: settings.name.clone().unwrap_or_default(),
        user: settings.user.clone().unwrap_or_default(),
        password: settings.pass.as_ref().map_or("", Secret::expose).to_owned(),
        ssl: ssl_mode(settings.ssl).to_owned(),
    }
}

fn ssl_mode(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

/// What netmaps hold beside the tailnet.
pub(crate) fn map_context(config: &Config, derp_map: Arc<DerpMap>) -> MapContext {
    MapContext { base_domain: base_domain(config), derp_map, dns: dns(config) }
}

/// Names need a domain even where MagicDNS is off.
fn base_domain(config: &Config) -> String {
    config
        .dns
        .base_domain
        .as_ref()
        .map_or_else(|| "tailnet.internal".to_owned(), ToString::to_string)
}

fn dns(config: &Config) -> DnsConfig {
    let dns = &config.dns;
    let global: Vec<Resolver> = dns.nameservers.global.iter().map(resolver).collect();
    let mut routes = BTreeMap::new();
    if dns.magic_dns {
        routes = magic_dns_routes(&base_domain(config), config.prefixes.v4, config.prefixes.v6);
    }
    for (domain, nameservers) in &dns.nameservers.split {
        routes.insert(domain.to_string(), nameservers.iter().map(resolver).collect());
    }
    let search = dns.search_domains.iter().map(ToString::to_string);
    let own = dns.magic_dns.then(|| base_domain(config));
    let (resolvers, fallback_resolvers) =
        if dns.override_local_dns { (global, Vec::new()) } else { (Vec::new(), global) };
    DnsConfig {
        resolvers,
        fallback_resolvers,
        routes,
        domains: own.into_iter().chain(search).collect(),
        proxied: dns.magic_dns,
        extra_records: dns.extra_records.iter().map(record).collect(),
        ..DnsConfig::default()
    }
}

fn resolver(nameserver: &Nameserver) -> Resolver {
    Resolver { addr: nameserver.as_str().to_owned(), ..Resolver::default() }
}

fn record(record: &ExtraRecord) -> DnsRecord {
    DnsRecord {
        name: record.name.to_string(),
        value: record.address.to_string(),
        ..DnsRecord::default()
    }
}

/// TLS of the public listener, if there is a certificate.
pub(crate) fn tls(config: &Config) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};

    let (Some(cert_path), Some(key_path)) = (&config.tls.cert_path, &config.tls.key_path) else {
        return Ok(None);
    };
    let unusable = |path: &std::path::Path| format!("cannot use {}", path.display());
    let chain = CertificateDer::pem_file_iter(cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| unusable(cert_path))?;
    let key = PrivateKeyDer::from_pem_file(key_path).with_context(|| unusable(key_path))?;
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| unusable(cert_path))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(tls)))
}

/// The URL that clients know us by: as configured, else by the address that we listen on.
pub(crate) fn server_url(config: &Config) -> String {
    if let Some(url) = &config.server_url {
        return url.origin();
    }
    let scheme = if config.tls.cert_path.is_some() { "https" } else { "http" };
    let listening = config.listen_addr;
    let address = if listening.ip().is_unspecified() { lan_address() } else { listening.ip() };
    format!("{scheme}://{}", SocketAddr::new(address, listening.port()))
}

/// The address by which this machine reaches others, and they it: what the system would send from. Nothing is
/// sent. A machine without a network has its loopback.
pub(crate) fn lan_address() -> IpAddr {
    let local = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Documentation addresses (RFC 5737) are routed like any other.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    local().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
