//! A certificate authority of our own, for scenarios with TLS.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// The files of a server certificate for 127.0.0.1 and of the authority that vouches for it.
#[derive(Debug)]
pub(crate) struct Authority {
    /// What clients must trust, PEM.
    pub(crate) root: PathBuf,
    /// The server's certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// The key of it, PEM.
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes both and writes them into `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "scenario authority");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key)?;

        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let certificate = server.signed_by(&key, &Issuer::from_params(&root, &root_key))?;

        let files = Self {
            root: directory.join("root.pem"),
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        fs::write(&files.root, root_certificate.pem())?;
        fs::write(&files.certificate, certificate.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}
