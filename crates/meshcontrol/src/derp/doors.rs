//! The doors of a relay, by itself or in `meshcontrol serve`: TLS, plain http and STUN.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use mesh_config::sections::DerpServer;
use mesh_relay::{LiveCertificate, Relay, ServiceHandle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::certificate::{self, Files, Follower, system_time};

/// Opens the doors of a relay.
pub(crate) struct Opener<'a> {
    pub(crate) relay: &'a Relay,
    pub(crate) settings: &'a DerpServer,
    /// Name or address that clients know the relay by.
    pub(crate) host: &'a str,
    pub(crate) data_dir: &'a Path,
    /// Ends what looks after the doors.
    pub(crate) stop: &'a CancellationToken,
}

/// Open doors. They close with the relay, or with this value.
pub(crate) struct Doors {
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) stun: Option<SocketAddr>,
    /// What clients must find in the DERP map, if only that lets them trust the certificate.
    pub(crate) pin: Option<String>,
    services: Vec<ServiceHandle>,
}

impl Doors {
    /// Doors without anybody behind them, for what is said of doors.
    #[cfg(test)]
    pub(crate) fn of_addresses(
        http: Option<SocketAddr>,
        stun: Option<SocketAddr>,
        pin: Option<String>,
    ) -> Self {
        Self { tls: None, http, stun, pin, services: Vec::new() }
    }

    /// Waits until all connections have ended, after the relay was drained or cancelled.
    pub(crate) async fn stopped(self) {
        for service in self.services {
            service.stopped().await;
        }
    }
}

impl Opener<'_> {
    /// Opens all doors that are wanted; TLS at `tls`.
    pub(crate) async fn open(self, tls: Option<SocketAddr>) -> anyhow::Result<Doors> {
        let mut services = Vec::new();
        let mut keep = |service: ServiceHandle| {
            let address = service.local_addr();
            services.push(service);
            address
        };
        let mut doors =
            Doors { tls: None, http: None, stun: None, pin: None, services: Vec::new() };
        if let Some(address) = tls {
            let (service, pin) = self.open_tls(address).await?;
            (doors.tls, doors.pin) = (Some(keep(service)), pin);
        }
        if let Some(address) = self.settings.http_listen_addr {
            let service = self.relay.spawn_plain_listener(address).await;
            let service =
                service.with_context(|| cannot("the relay", address, "http_listen_addr"))?;
            doors.http = Some(keep(service));
        }
        if let Some(address) = self.settings.stun_listen_addr {
            let service = self.relay.spawn_stun_listener(address).await;
            let service = service.with_context(|| cannot("STUN", address, "stun_listen_addr"))?;
            doors.stun = Some(keep(service));
        }
        Ok(Doors { services, ..doors })
    }

    async fn open_tls(
        &self,
        address: SocketAddr,
    ) -> anyhow::Result<(ServiceHandle, Option<String>)> {
        let key = self.relay.public_key();
        let (certificate, renewed) = match files(self.settings) {
            Some(files) => {
                let text = files.read()?;
                (files.parse(&text)?, Some((files, text)))
            }
            None => (certificate::pinned(self.host, self.data_dir)?, None),
        };
        let is_pinned = renewed.as_ref().is_none_or(|(_, text)| certificate::is_self_signed(text));
        let pin = certificate.pin().filter(|_| is_pinned);
        certificate::warn_of_host(&certificate, self.host);
        let unusable = "cannot use the relay's certificate";
        let shown = LiveCertificate::new(certificate, &key, system_time()).context(unusable)?;
        let tls = shown.server_config().context(unusable)?;
        let service = self.relay.spawn_tls_listener(address, tls).await;
        let service = service.with_context(|| cannot("the relay", address, "listen_addr"))?;
        if let Some((files, text)) = renewed {
            let follower = Follower::new(files, shown, self.host, &text);
            tokio::spawn(follower.run(signal(SignalKind::hangup())?, self.stop.clone()));
        }
        Ok((service, pin))
    }
}

/// Whether the certificate that the TLS listener is to show, if it is one in files, can be read and used.
pub(crate) fn check_certificate(settings: &DerpServer) -> anyhow::Result<()> {
    let Some(files) = files(settings).filter(|_| settings.listen_addr.is_some()) else {
        return Ok(());
    };
    files.parse(&files.read()?).map(drop)
}

fn files(settings: &DerpServer) -> Option<Files> {
    let (cert_path, key_path) =
        settings.tls_cert_path.clone().zip(settings.tls_key_path.clone())?;
    Some(Files { cert_path, key_path })
}

fn cannot(what: &str, address: SocketAddr, key: &str) -> String {
    format!("{what} cannot listen on {address}: set derp.server.{key}")
}
