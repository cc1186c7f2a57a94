//! The certificate of a relay's TLS listener: files that somebody renews, or one of our own that clients pin.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use mesh_relay::{Certificate, LiveCertificate, generate_self_signed};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::derp_map::x509::{Validity, is_self_issued};
use crate::serve::files;

/// The certificate that clients pin, in the data directory.
const PINNED_FILE: &str = "derp_certificate.pem";

/// How often files are looked at: whoever renews them does so days before the old ones end.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Makes the certificate by whose pin clients know the relay: at the first start, and again when the relay goes by
/// another name, for clients also want their name for it in there.
pub(crate) fn pinned(host: &str, data_dir: &Path) -> anyhow::Result<Certificate> {
    let path = data_dir.join(PINNED_FILE);
    let shown = path.display();
    if path.exists() {
        let text = files::read_private(&path).with_context(|| format!("cannot read {shown}"))?;
        let kept = Certificate::from_pem(&text).with_context(|| {
            format!("{shown} is damaged: remove it, and clients are told of another")
        })?;
        if kept.is_for(host) {
            return Ok(kept);
        }
        tracing::warn!(path = %shown, host, "the relay's certificate is made anew for another host");
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {shown}"))?;
    }
    let text = generate_self_signed(host, system_time())?;
    files::write_private(&path, &text)?;
    Ok(Certificate::from_pem(&text)?)
}

/// The time that certificates are valid by.
#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A certificate and its key in two files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
}

impl Files {
    /// Reads both, as one PEM text.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(format!("{}\n{}", read(&self.cert_path)?, read(&self.key_path)?))
    }

    /// The certificate in such a text. Warns of what clients refuse it for.
    pub(crate) fn parse(&self, text: &str) -> anyhow::Result<Certificate> {
        let (path, key) = (self.cert_path.display(), self.key_path.display());
        let certificate =
            Certificate::from_pem(text).with_context(|| format!("cannot use {path} with {key}"))?;
        self.warn_of_time(validity(text, UnixTime::now()));
        if let Some(pin) = certificate.pin().filter(|_| is_self_signed(text)) {
            tracing::warn!(%path, pin, "the relay's certificate is self-signed: clients want its pin as certname in the map");
        }
        Ok(certificate)
    }

    fn warn_of_time(&self, validity: Validity) {
        let path = self.cert_path.display();
        match validity {
            Validity::Valid => {}
            Validity::TooEarly => {
                tracing::warn!(%path, "the relay's certificate is not valid yet: see that the clock is right");
            }
            Validity::Expired => {
                tracing::warn!(%path, "the relay's certificate has expired, clients refuse it: renew it");
            }
        }
    }
}

/// Warns of a certificate that does not name the host by which clients know the relay.
pub(crate) fn warn_of_host(certificate: &Certificate, host: &str) {
    if !certificate.is_for(host) {
        tracing::warn!(
            host,
            "the relay's certificate is for another host: clients want its name as certname in the map"
        );
    }
}

/// The first certificate in a text, which is the relay's.
fn first(text: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

/// How the certificate in a text stands to the time.
fn validity(text: &str, now: UnixTime) -> Validity {
    first(text).map_or(Validity::Valid, |certificate| Validity::at(&certificate, now))
}

/// Whether no authority has signed the certificate in a text, so that clients have to pin it.
pub(crate) fn is_self_signed(text: &str) -> bool {
    first(text).is_some_and(|certificate| is_self_issued(&certificate))
}

/// Has a listener show what is in the files, whenever that changes.
pub(crate) struct Follower {
    files: Files,
    shown: LiveCertificate,
    /// Name or address that clients know the relay by.
    host: String,
    /// Digest of what was last found, whatever came of it, so that what is bad is told once.
    seen: u64,
    /// How that stood to the time, which may end without anybody touching the files.
    validity: Validity,
}

impl Follower {
    /// Follows `files`, whose `text` is what `shown` shows.
    pub(crate) fn new(files: Files, shown: LiveCertificate, host: &str, text: &str) -> Self {
        let validity = validity(text, UnixTime::now());
        Self { files, shown, host: host.to_owned(), seen: digest(text), validity }
    }

    /// Looks at the files every minute and on each SIGHUP, until `stop`.
    pub(crate) async fn run(mut self, mut hangups: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = hangups.recv() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look();
        }
    }

    /// Takes in what the files hold. What cannot be used changes nothing.
    fn look(&mut self) {
        let text = self.files.read();
        // Why a file cannot be read is told once too.
        let seen =
            text.as_ref().map_or_else(|error| digest(&format!("{error:#}")), |text| digest(text));
        let validity = text.as_ref().map_or(self.validity, |text| validity(text, UnixTime::now()));
        let was_valid = std::mem::replace(&mut self.validity, validity);
        if std::mem::replace(&mut self.seen, seen) == seen {
            if validity != was_valid {
                self.files.warn_of_time(validity);
            }
            return;
        }
        let path = self.files.cert_path.display();
        let replaced = text.and_then(|text| self.files.parse(&text)).and_then(|certificate| {
            warn_of_host(&certificate, &self.host);
            Ok(self.shown.replace(certificate, system_time())?)
        });
        match replaced {
            Ok(()) => tracing::info!(%path, "the relay shows another certificate"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(%path, error, "the relay goes on with its last good certificate");
            }
        }
    }
}

/// Tells texts apart without keeping them, for a private key is in there.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_refuse_a_file_for_is_found() {
        let day = Duration::from_hours(24);
        let made_at = 20_000 * day;
        let text = generate_self_signed("relay.example.com", SystemTime::UNIX_EPOCH + made_at);
        let text = text.unwrap();
        assert!(is_self_signed(&text));
        for (at, expected) in [
            (made_at, Validity::Valid),
            (19_998 * day, Validity::TooEarly),
            (made_at + 3660 * day, Validity::Expired),
        ] {
            assert_eq!(validity(&text, UnixTime::since_unix_epoch(at)), expected, "{at:?}");
        }
        // Of what is no certificate, other things are told.
        assert!(!is_self_signed(""));
        assert_eq!(validity("", UnixTime::now()), Validity::Valid);
    }
}
