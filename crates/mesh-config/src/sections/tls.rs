//! `tls_*`: the certificate of the public listener.

use std::path::PathBuf;

use crate::finding::Report;
use crate::key::section;

section! {
    /// Certificate of the public listener; without one it speaks plain http, for a proxy in front.
    pub struct Tls {
        /// Certificate chain in PEM; the listener then speaks TLS. Goes with `tls_key_path`.
        pub cert_path: Option<PathBuf> = "tls_cert_path", "\"\"";
        /// Private key of the certificate in PEM.
        pub key_path: Option<PathBuf> = "tls_key_path", "\"\"";
    }
}

impl Tls {
    pub(crate) fn check(&self, report: &mut Report) {
        match (&self.cert_path, &self.key_path) {
            (Some(_), None) => {
                report.error("tls_cert_path", "is set without tls_key_path; set both");
            }
            (None, Some(_)) => {
                report.error("tls_key_path", "is set without tls_cert_path; set both");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
