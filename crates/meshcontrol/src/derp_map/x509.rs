//! As much of a certificate as clients look at and the TLS library does not tell by itself.

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

/// What announces a common name in a subject: the object identifier 2.5.4.3 in DER.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// Bytes of type and length between that and the name, which has at most 64.
const TEXT_HEADER_BYTES: usize = 2;

/// How a certificate stands to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    /// It is within its validity, as far as can be told.
    Valid,
    TooEarly,
    Expired,
}

impl Validity {
    pub(crate) fn at(certificate: &CertificateDer<'_>, now: UnixTime) -> Self {
        // Time is looked at first. Then nobody is found to have signed it, which says nothing here.
        let nobody = RootCertStore::empty();
        let verified = ParsedCertificate::try_from(certificate).and_then(|certificate| {
            verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], now, &[])
        });
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Self::Expired,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Self::TooEarly,
            Ok(()) | Err(_) => Self::Valid,
        }
    }
}

/// Whether a common name of the certificate's subject begins so.
pub(crate) fn has_common_name(certificate: &CertificateDer<'_>, prefix: &str) -> bool {
    let subject = subject(certificate).unwrap_or_default();
    let names = subject.windows(COMMON_NAME.len()).enumerate();
    names.filter(|(_, window)| *window == COMMON_NAME).any(|(start, _)| {
        let text = subject.get(start + COMMON_NAME.len() + TEXT_HEADER_BYTES..);
        text.is_some_and(|text| text.starts_with(prefix.as_bytes()))
    })
}

/// Whether the certificate names itself as its issuer: then no authority has signed it.
pub(crate) fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    // The issuer stands before the subject, and they are written alike.
    subject(certificate).is_some_and(|subject| {
        let places = certificate.windows(subject.len().max(1));
        places.filter(|window| *window == subject).count() > 1
    })
}

/// The subject in DER, with its outer sequence.
fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let mut store = RootCertStore::empty();
    store.add(certificate.clone()).ok()?;
    store.subjects().pop().map(|subject| subject.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_relay::generate_self_signed;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const HOST: &[u8] = b"relay.example.com";

    fn self_signed() -> CertificateDer<'static> {
        let host = str::from_utf8(HOST).unwrap();
        let made_at = SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(500_000);
        let text = generate_self_signed(host, made_at).unwrap();
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn who_has_another_issuer_is_not_self_issued() {
        let own = self_signed();
        assert!(is_self_issued(&own));
        // The issuer's name is the first in there.
        let mut bytes = own.to_vec();
        let issuer = bytes.windows(HOST.len()).position(|window| window == HOST).unwrap();
        bytes[issuer] = b'd';
        assert!(!is_self_issued(&bytes.into()));
        assert!(!is_self_issued(&b"no certificate".as_slice().into()));
    }

    #[test]
    fn a_common_name_is_known_by_its_beginning() {
        let own = self_signed();
        for (prefix, expected) in
            [("relay", true), ("relay.example.com", true), ("example", false), ("derpkey", false)]
        {
            assert_eq!(has_common_name(&own, prefix), expected, "{prefix}");
        }
    }
}
