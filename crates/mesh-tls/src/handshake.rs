//! The handshake, up to the point where [`Records`] go on.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ExtractedSecrets, ServerConfig};
use thiserror::Error;

use crate::records::{RecordError, Records};

/// Why a handshake came to nothing.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The other side, or we, cannot go on.
    #[error(transparent)]
    Tls(#[from] Error),
    /// The other side hung up meanwhile.
    #[error("other side ends the connection within the handshake")]
    Ended,
    /// rustls has no room for what it writes.
    #[error("cannot write a handshake message")]
    Encode,
    /// Its outcome cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A client or a server, as rustls knows them.
pub trait Side: Sized {
    /// rustls's type parameter of the side.
    type Data;

    /// See rustls.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// See rustls.
    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// A handshake that goes on. Its configuration must allow TLS 1.3 alone and have `enable_secret_extraction`.
pub struct Handshake<S>(S);

impl Handshake<UnbufferedClientConnection> {
    /// Begins as a client. The first call of [`Self::advance`] says hello.
    ///
    /// # Errors
    /// When the configuration cannot be used for this host.
    pub fn client(
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        Ok(Self(UnbufferedClientConnection::new(config, host)?))
    }
}

impl Handshake<UnbufferedServerConnection> {
    /// Begins as a server.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        Ok(Self(UnbufferedServerConnection::new(config)?))
    }
}

impl<S: Side> Handshake<S> {
    /// Takes what it can off the front of `incoming` and appends to `outgoing` what is to be sent, an alert before an error
    /// too. True at the end; `incoming` then holds records that came early.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn advance(
        &mut self,
        incoming: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
        early: &mut Vec<u8>,
    ) -> Result<bool, HandshakeError> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.0.process(incoming);
            let end = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(outgoing, |buffer| data.encode(buffer))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    None
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        early.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(false),
                Ok(ConnectionState::WriteTraffic(_)) => Some(true),
                Ok(_) => return Err(HandshakeError::Ended),
                Err(error) => {
                    self.explain(outgoing);
                    return Err(error.into());
                }
            };
            incoming.drain(..discard);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Ends a handshake that [`Self::advance`] found to be over.
    ///
    /// # Errors
    /// When the connection's suite is none that is known.
    pub fn finish(self) -> Result<Records<S::Data>, HandshakeError> {
        let (secrets, kernel) = self.0.into_kernel()?;
        Ok(Records::new(secrets, kernel)?)
    }

    /// Appends the alert that tells the other side what was wrong, if there is one.
    fn explain(&mut self, outgoing: &mut Vec<u8>) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.0.process(&mut []).state {
            // The connection is lost anyway.
            let _ = append(outgoing, |buffer| data.encode(buffer));
        }
    }
}

fn append(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), HandshakeError> {
    let start = outgoing.len();
    let mut written = encode(&mut []);
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = written {
        outgoing.resize(start + required_size, 0);
        written = encode(&mut outgoing[start..]);
    }
    outgoing.truncate(start + written.map_err(|_| HandshakeError::Encode)?);
    Ok(())
}

impl<S> std::fmt::Debug for Handshake<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").finish_non_exhaustive()
    }
}
