//! Whom this machine trusts with certificates.

use std::sync::Arc;

use rustls::RootCertStore;

/// The authorities of the system. One that cannot be read is left out, as there are always others.
pub(crate) fn of_system() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}
