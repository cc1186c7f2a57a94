//! What stock clients want of a pinned certificate beside its pin.
//!
//! Source: tailscale `net/tlsdial/tlsdial.go`, `SetConfigExpectedCertHash`.

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::x509::{Validity, has_common_name};
use super::Failure;

/// What the common name of a certificate begins with that tells a relay's key and is passed over.
///
/// Source: tailscale `derp/derpconst/derpconst.go`.
const META_NAME_PREFIX: &str = "derpkey";

/// Looks at the certificates that a relay shows, of which the first has the pin.
pub(super) fn check(
    shown: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Failure> {
    let mut counted = shown.iter().filter(|der| !has_common_name(der, META_NAME_PREFIX));
    let (Some(pinned), None) = (counted.next(), counted.next()) else {
        return Err(Failure::PinnedAmongOthers);
    };
    let is_named = |certificate| verify_server_name(&certificate, name).is_ok();
    if matches!(name, ServerName::DnsName(_))
        && !ParsedCertificate::try_from(pinned).is_ok_and(is_named)
    {
        return Err(Failure::PinnedForOther);
    }
    match Validity::at(pinned, now) {
        Validity::Valid => Ok(()),
        Validity::TooEarly => Err(Failure::PinnedTooEarly),
        Validity::Expired => Err(Failure::PinnedExpired),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use mesh_keys::NodePublic;
    use mesh_relay::{generate_self_signed, meta_certificate};
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// When the certificates are made, a day after the first that they are valid.
    const MADE_AT: Duration = Duration::from_hours(24 * 20_000);

    fn check_shown(
        shown: &[&CertificateDer<'_>],
        host: &str,
        at: Duration,
        expected: &Result<(), Failure>,
    ) {
        let shown: Vec<_> = shown.iter().map(|der| (*der).clone()).collect();
        let name = ServerName::try_from(host).unwrap();
        assert_eq!(
            &check(&shown, &name, UnixTime::since_unix_epoch(at)),
            expected,
            "{host} {at:?}"
        );
    }

    #[test]
    fn what_stock_clients_refuse_is_told() {
        let made_at = SystemTime::UNIX_EPOCH + MADE_AT;
        let made = |host| {
            let text = generate_self_signed(host, made_at).unwrap();
            CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
        };
        let (host, other) = ("relay.example.com", "other.example.com");
        let (own, foreign) = (made(host), made(other));
        let meta = meta_certificate(&NodePublic::from_bytes([0xab; 32]), made_at).unwrap();
        check_shown(&[&own], host, MADE_AT, &Ok(()));
        check_shown(&[&own, &meta], host, MADE_AT, &Ok(()));
        check_shown(&[&own, &meta], "192.0.2.7", MADE_AT, &Ok(()));
        check_shown(&[&own, &meta], other, MADE_AT, &Err(Failure::PinnedForOther));
        for shown in [&[&own, &foreign, &meta][..], &[&own, &own], &[&meta], &[]] {
            check_shown(shown, host, MADE_AT, &Err(Failure::PinnedAmongOthers));
        }
        check_shown(&[&own], host, 19_998 * DAY, &Err(Failure::PinnedTooEarly));
        check_shown(&[&own], host, 23_660 * DAY, &Err(Failure::PinnedExpired));
    }
}
