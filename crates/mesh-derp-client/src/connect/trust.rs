//! Which certificate a relay must have.
//!
//! `CertName` of the DERP map is a name to verify in place of the host's, or `sha256-raw:` and the SHA-256 of the
//! one certificate that is trusted, whatever it says: who holds its key is the relay. Stock clients look at its
//! name and validity too. Without a `CertName`, `InsecureForTests` lets any certificate pass.
//!
//! Source: tailscale `derp/derphttp/derphttp_client.go`, `tlsClient`; `net/tlsdial/tlsdial.go`.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use mesh_wire::DerpNode;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use super::ConnectError;

/// What a `CertName` begins with that pins a certificate.
const PIN_PREFIX: &str = "sha256-raw:";

/// Bytes of a pin.
const PIN_BYTES: usize = 32;

/// The relay has another certificate than the pinned one.
#[derive(Debug, Error)]
#[error("certificate is not the pinned one")]
struct NotPinned;

/// Makes the TLS configuration for one relay: its certificate must be the one that the DERP map says.
pub fn client_config(
    node: &DerpNode,
    roots: Arc<RootCertStore>,
) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { trust: Trust::parse(node)?, roots, algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("invariant: ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Made anew for each connection, it would remember sessions in vain.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What is wanted of a certificate.
#[derive(Debug, PartialEq, Eq)]
enum Trust {
    /// This name, signed by one of the roots.
    Name(ServerName<'static>),
    /// To be the one with this hash.
    Pin([u8; PIN_BYTES]),
    /// Nothing.
    Anyone,
}

impl Trust {
    fn parse(node: &DerpNode) -> Result<Self, ConnectError> {
        let DerpNode { cert_name, host_name, .. } = node;
        if let Some(hex) = cert_name.strip_prefix(PIN_PREFIX) {
            let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
            let pin = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(ConnectError::Pin)?;
            return Ok(Self::Pin(pin));
        }
        if cert_name.is_empty() && node.insecure_for_tests {
            return Ok(Self::Anyone);
        }
        let name = if cert_name.is_empty() { host_name } else { cert_name };
        let name = ServerName::try_from(name.clone()).map_err(|_| ConnectError::ServerName)?;
        Ok(Self::Name(name))
    }
}

/// Verifies the certificate of one relay.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Name(name) => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                verify_server_cert_signed_by_trust_anchor(
                    &certificate,
                    &self.roots,
                    intermediates,
                    now,
                    self.algorithms.all,
                )?;
                verify_server_name(&certificate, name)?;
            }
            Trust::Pin(pin) if digest(&SHA256, end_entity).as_ref() != pin => {
                return Err(Error::Other(OtherError(Arc::new(NotPinned))));
            }
            Trust::Pin(_) | Trust::Anyone => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cert_name: &str, insecure_for_tests: bool, expected: Option<&Trust>) {
        let (host_name, cert_name) = ("relay.example".to_owned(), cert_name.to_owned());
        let node = DerpNode { host_name, cert_name, insecure_for_tests, ..DerpNode::default() };
        assert_eq!(Trust::parse(&node).ok().as_ref(), expected, "{:?}", node.cert_name);
    }

    fn name(text: &'static str) -> Trust {
        Trust::Name(ServerName::try_from(text).expect("a name"))
    }

    #[test]
    fn the_cert_name_says_what_is_trusted() {
        let pin = Trust::Pin([0xab; PIN_BYTES]);
        check("", false, Some(&name("relay.example")));
        check("other.example", false, Some(&name("other.example")));
        check("192.0.2.1", false, Some(&name("192.0.2.1")));
        check(&format!("sha256-raw:{}", "ab".repeat(32)), false, Some(&pin));
        check("", true, Some(&Trust::Anyone));
    }

    #[test]
    fn insecurity_does_not_undo_a_cert_name() {
        let pin = Trust::Pin([0xab; PIN_BYTES]);
        check("other.example", true, Some(&name("other.example")));
        check(&format!("sha256-raw:{}", "AB".repeat(32)), true, Some(&pin));
    }

    #[test]
    fn a_malformed_cert_name_trusts_nobody() {
        check("sha256-raw:", true, None);
        check(&format!("sha256-raw:{}", "ab".repeat(31)), true, None);
        check(&format!("sha256-raw:{}", "xy".repeat(32)), true, None);
        check("not a name", true, None);
    }
}
