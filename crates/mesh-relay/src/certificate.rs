//! TLS certificates of a relay: self-signed ones that clients pin, and the one that tells them its key.
//!
//! A stock client takes `sha256-raw:<hex>` as a DERP node's `CertName` for the SHA-256 of the whole
//! certificate. It then wants exactly that one certificate in the chain, but for any whose common name
//! begins with `derpkey`; that it names the node's `HostName`, if that is no address; and that now is within
//! its validity. Who signed it, and how, is of no interest. Clients before 1.82 do not know the form, nor
//! does the Rust client, which skips such nodes.
//!
//! Source: tailscale `net/tlsdial/tlsdial.go`, `SetConfigExpectedCertHash`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mesh_keys::NodePublic;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;

use crate::door::hex_of;

/// How long a certificate is valid. It is trusted by its pin, and a new one would be a new DERP map for
/// every client: so, longer than the server lives.
const VALIDITY: Duration = Duration::from_hours(24 * 3650);

/// How far a client's clock may be behind ours.
const CLOCK_SLACK: Duration = Duration::from_hours(24);

/// What the common name of the meta certificate begins with.
///
/// Source: tailscale `derp/derpconst/derpconst.go`.
const META_NAME_PREFIX: &str = "derpkey";

/// Why a certificate cannot be made or used.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The text holds something that is not PEM.
    #[error("certificate or key is not PEM")]
    Pem(#[source] pem::Error),
    /// The text holds no certificate.
    #[error("no certificate in the PEM text")]
    NoCertificate,
    /// Making the certificate failed: the host name has letters that a certificate cannot hold.
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
    /// Certificate and key do not belong together, or are of a kind that TLS cannot use.
    #[error("cannot use the certificate for TLS")]
    Tls(#[source] rustls::Error),
}

/// Makes a key and a self-signed certificate for a host name or address, as PEM text for a private file.
///
/// It is valid from a day before `now` on for ten years, and is read again by [`Certificate::from_pem`].
pub fn generate_self_signed(host: &str, now: SystemTime) -> Result<String, CertificateError> {
    let mut params =
        CertificateParams::new([host.to_owned()]).map_err(CertificateError::Generate)?;
    set_name_and_validity(&mut params, host, now);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(CertificateError::Generate)?;
    let certificate = params.self_signed(&key).map_err(CertificateError::Generate)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// Makes the certificate that tells clients the relay's key during the TLS handshake, for the end of the
/// chain. Clients that find it there start DERP without waiting for any answer (fast start).
///
/// Nobody verifies it: it is a message, signed by a key that is thrown away. Pinning clients pass it over.
/// It may only be sent by a server that can leave an upgrade without answer, as
/// [`crate::Relay::serve_connection`] can.
///
/// Source: tailscale `derp/derpserver/derpserver.go`, `initMetacert`.
pub fn meta_certificate(
    relay: &NodePublic,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CertificateError> {
    let mut params = CertificateParams::default();
    set_name_and_validity(&mut params, &format!("{META_NAME_PREFIX}{}", hex_of(relay)), now);
    params.serial_number = Some(SerialNumber::from(u64::from(mesh_derp::PROTOCOL_VERSION)));
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(CertificateError::Generate)?;
    let certificate = params.self_signed(&key).map_err(CertificateError::Generate)?;
    Ok(certificate.der().clone())
}

fn set_name_and_validity(params: &mut CertificateParams, name: &str, now: SystemTime) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + VALIDITY).into();
    // Apple's verifier refuses a self-issued certificate that does not say that it is no authority.
    params.is_ca = IsCa::ExplicitNoCa;
}

/// A chain of certificates and the private key of the first.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// Reads the certificates and the one key in a PEM text, in whatever order they stand there.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.map_err(CertificateError::Pem)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(CertificateError::Pem)?;
        Ok(Self { chain, key })
    }

    /// What a DERP map's `CertName` must be for clients to trust this certificate and no other.
    ///
    /// `None` for a chain of several: clients refuse to pin those.
    pub fn pin(&self) -> Option<String> {
        let [certificate] = self.chain.as_slice() else { return None };
        let hash = digest(&SHA256, certificate);
        Some(format!("sha256-raw:{}", data_encoding::HEXLOWER.encode(hash.as_ref())))
    }

    /// Whether the certificate names this host: pinning clients want that of a name, though not of an
    /// address. One made for another host has to be made anew.
    pub fn is_for(&self, host: &str) -> bool {
        let certificate = self.chain.first().and_then(|der| ParsedCertificate::try_from(der).ok());
        let host = ServerName::try_from(host).ok();
        certificate
            .zip(host)
            .is_some_and(|(certificate, host)| verify_server_name(&certificate, &host).is_ok())
    }

    /// Makes the configuration for [`crate::Relay::spawn_tls_listener`] with this certificate for good, and with
    /// fast start for the relay with the key `relay`.
    pub fn server_config(
        self,
        relay: &NodePublic,
        now: SystemTime,
    ) -> Result<ServerConfig, CertificateError> {
        LiveCertificate::new(self, relay, now)?.server_config()
    }

    fn certified(
        mut self,
        relay: &NodePublic,
        now: SystemTime,
    ) -> Result<CertifiedKey, CertificateError> {
        self.chain.push(meta_certificate(relay, now)?);
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain, self.key, &provider).map_err(CertificateError::Tls)
    }
}

/// The certificate that a listener shows, which can be exchanged while it listens. Its clones are the same.
#[derive(Debug, Clone)]
pub struct LiveCertificate {
    relay: NodePublic,
    shown: Arc<Shown>,
}

impl LiveCertificate {
    /// Shows `certificate` first, with fast start for the relay with the key `relay`.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or TLS cannot use them.
    pub fn new(
        certificate: Certificate,
        relay: &NodePublic,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let shown = RwLock::new(Arc::new(certificate.certified(relay, now)?));
        Ok(Self { relay: *relay, shown: Arc::new(Shown(shown)) })
    }

    /// Shows another certificate from the next handshake on. One that cannot be used changes nothing.
    ///
    /// # Errors
    /// As those of [`Self::new`].
    pub fn replace(
        &self,
        certificate: Certificate,
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        let certified = Arc::new(certificate.certified(&self.relay, now)?);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    /// Makes the configuration for [`crate::Relay::spawn_tls_listener`].
    ///
    /// # Errors
    /// None that is known: they are those of the TLS library's versions and algorithms, which are fixed.
    pub fn server_config(&self) -> Result<ServerConfig, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(CertificateError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients stay for days and do not resume sessions: tickets would only cost.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

/// What the TLS library asks at each handshake.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests;
