//! The handshake of TLS 1.3 as stock clients make it, up to the point where [`Records`] go on.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use crate::record::{RecordError, Records};

/// Why a handshake came to nothing.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// The other side, or we, cannot go on.
    #[error("TLS handshake failed")]
    Handshake(#[from] Error),
    /// It hung up meanwhile, or sent data before its end.
    #[error("TLS handshake out of step")]
    OutOfStep,
    /// Its outcome cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Makes the configuration of all clients: any certificate will do, for a bench trusts what it started.
///
/// The suites are in the order of Go's clients on machines with AES, so that relays choose as they do for those.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, Error> {
    let suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() });
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone { schemes }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// A handshake that goes on.
pub(crate) struct Handshake(UnbufferedClientConnection);

impl Handshake {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> Result<Self, TlsError> {
        Ok(Self(UnbufferedClientConnection::new(config, host)?))
    }

    /// Takes what it can off the front of `incoming` and appends to `outgoing` what is to be sent. True at the end.
    pub(crate) fn advance(
        &mut self,
        incoming: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.0.process_tls_records(incoming);
            let end = match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    append(outgoing, |buffer| data.encode(buffer))?;
                    None
                }
                ConnectionState::TransmitTlsData(sent) => {
                    sent.done();
                    None
                }
                ConnectionState::BlockedHandshake => Some(false),
                ConnectionState::WriteTraffic(_) => Some(true),
                ConnectionState::ReadTraffic(_)
                | ConnectionState::ReadEarlyData(_)
                | ConnectionState::PeerClosed
                | ConnectionState::Closed
                | _ => return Err(TlsError::OutOfStep),
            };
            incoming.drain(..discard);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Ends a handshake that [`Self::advance`] found to be over.
    pub(crate) fn finish(self) -> Result<Records, TlsError> {
        let (secrets, _) = self.0.dangerous_into_kernel_connection()?;
        Ok(Records::new(secrets)?)
    }
}

fn append(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), TlsError> {
    let start = outgoing.len();
    let mut written = encode(&mut []);
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = written {
        outgoing.resize(start + required_size, 0);
        written = encode(&mut outgoing[start..]);
    }
    outgoing.truncate(start + written.map_err(|_| TlsError::OutOfStep)?);
    Ok(())
}

/// Trusts everybody.
#[derive(Debug)]
struct Anyone {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
