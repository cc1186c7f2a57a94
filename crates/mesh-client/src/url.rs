//! The address of a control server.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use thiserror::Error;

/// Why a text is no control server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlUrlError {
    /// It is no URL at all.
    #[error("not a URL")]
    Malformed,
    /// Another scheme than the two that a control server speaks.
    #[error("URL does not begin with http:// or https://")]
    Scheme,
    /// There is more than a host and a port.
    #[error("URL has more than a scheme, a host and a port")]
    Extra,
}

/// The URL of a control server: `http://` or `https://`, a host, and a port if it is not the scheme's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlUrl {
    tls: bool,
    /// As in the URL: an IPv6 address stands in brackets.
    host: String,
    port: Option<u16>,
}

impl ControlUrl {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port to dial.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// What the `Host` header says: host, and port if it is in the URL.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

impl FromStr for ControlUrl {
    type Err = ControlUrlError;

    fn from_str(text: &str) -> Result<Self, ControlUrlError> {
        let uri: Uri = text.parse().map_err(|_| ControlUrlError::Malformed)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(ControlUrlError::Scheme),
        };
        let authority = uri.authority().ok_or(ControlUrlError::Malformed)?.as_str();
        let extra = authority.contains('@') || !matches!(uri.path(), "" | "/");
        if extra || uri.query().is_some() {
            return Err(ControlUrlError::Extra);
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(ControlUrlError::Malformed);
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

/// Splits `host:port`; in an IPv6 address, which stands in brackets, colons mean nothing.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), ControlUrlError> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().map_err(|_| ControlUrlError::Malformed)?;
            Ok((host, Some(port)))
        }
        _ => Ok((authority, None)),
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests;
