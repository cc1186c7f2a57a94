//! Another relay of the mesh, as it is configured.

use std::fmt;
use std::str::FromStr;

use mesh_wire::DerpNode;
use thiserror::Error;

/// Port of a relay that is given without one.
const DEFAULT_PORT: u16 = 443;

/// What the fingerprint of a pinned certificate begins with, as in a DERP map.
const PIN_PREFIX: &str = "sha256-raw:";

/// Digits of such a fingerprint.
const PIN_DIGITS: usize = 64;

/// The word for a relay whose certificate may be any.
const ANY_CERTIFICATE: &str = "any-certificate";

/// Another relay of the mesh, and how to reach it.
///
/// Its text form is `HOST`, `HOST:PORT` or, with the name or address to connect to instead, `HOST:PORT/DIAL-HOST`;
/// an IPv6 address with a port stands in brackets. Behind a space may follow what is wanted of its certificate:
/// `sha256-raw:` and 64 hexadecimal digits, or `any-certificate`.
///
/// Source: tailscale `cmd/derper/mesh.go` for the part before the space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// Its host name or address, by which its certificate is verified.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name or address to connect to instead of `host`.
    pub dial_host: Option<String>,
    /// What is wanted of its certificate.
    pub certificate: PeerCertificate,
}

/// What is wanted of the certificate of another relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCertificate {
    /// To be for its host name, and signed by somebody whom we trust.
    Trusted,
    /// To be the one with this fingerprint, as in a DERP map: `sha256-raw:` and 64 hexadecimal digits.
    Pinned(String),
    /// Nothing. Whoever answers at the relay's address gets to see the mesh key.
    Any,
}

/// Why the text form of a relay was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseMeshPeerError {
    /// There is no host name or address, or not as it is written: `HOST:PORT/DIAL-HOST`.
    #[error("not a relay's HOST, HOST:PORT or HOST:PORT/DIAL-HOST")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("port is not a number from 1 to 65535")]
    Port,
    /// What follows the host is neither a fingerprint nor the word for any certificate.
    #[error(
        "certificate is neither `{PIN_PREFIX}` and {PIN_DIGITS} hexadecimal digits nor `{ANY_CERTIFICATE}`"
    )]
    Certificate,
}

impl MeshPeer {
    /// The relay as a node of a DERP map.
    pub(crate) fn node(&self) -> DerpNode {
        let pin = match &self.certificate {
            PeerCertificate::Pinned(pin) => pin.clone(),
            PeerCertificate::Trusted | PeerCertificate::Any => String::new(),
        };
        DerpNode {
            host_name: self.host.clone(),
            derp_port: self.port.into(),
            cert_name: pin,
            insecure_for_tests: self.certificate == PeerCertificate::Any,
            ..DerpNode::default()
        }
    }
}

impl FromStr for MeshPeer {
    type Err = ParseMeshPeerError;

    fn from_str(text: &str) -> Result<Self, ParseMeshPeerError> {
        let (place, certificate) = match text.trim().split_once(char::is_whitespace) {
            Some((place, certificate)) => (place, parse_certificate(certificate.trim())?),
            None => (text.trim(), PeerCertificate::Trusted),
        };
        let (host, dial_host) = match place.split_once('/') {
            Some((host, dial_host)) => (host, Some(parse_host(dial_host)?)),
            None => (place, None),
        };
        let (host, port) = split_port(host)?;
        Ok(Self { host: parse_host(host)?, port, dial_host, certificate })
    }
}

impl fmt::Display for MeshPeer {
    /// Host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_certificate(text: &str) -> Result<PeerCertificate, ParseMeshPeerError> {
    if text == ANY_CERTIFICATE {
        return Ok(PeerCertificate::Any);
    }
    let digits = text.strip_prefix(PIN_PREFIX).ok_or(ParseMeshPeerError::Certificate)?;
    if digits.len() != PIN_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseMeshPeerError::Certificate);
    }
    Ok(PeerCertificate::Pinned(text.to_owned()))
}

/// Splits off the port. An IPv6 address has one only behind brackets.
fn split_port(text: &str) -> Result<(&str, u16), ParseMeshPeerError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, port),
        _ => return Ok((text, DEFAULT_PORT)),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(ParseMeshPeerError::Port)?;
    Ok((host, port))
}

/// Takes a name or address, in brackets or not.
fn parse_host(text: &str) -> Result<String, ParseMeshPeerError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte);
    if bare.is_empty() || !bare.bytes().all(is_host) {
        return Err(ParseMeshPeerError::Host);
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, host: &str, port: u16, dial_host: Option<&str>) {
        let expected = MeshPeer {
            host: host.to_owned(),
            port,
            dial_host: dial_host.map(str::to_owned),
            certificate: PeerCertificate::Trusted,
        };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[test]
    fn a_relay_is_a_host_with_or_without_a_port_and_a_place_to_dial() {
        check("relay.example", "relay.example", 443, None);
        check(" relay.example:8443\n", "relay.example", 8443, None);
        check("relay.example/10.0.0.1", "relay.example", 443, Some("10.0.0.1"));
        check("relay.example:8443/vpc.example", "relay.example", 8443, Some("vpc.example"));
        check("192.0.2.1:8443", "192.0.2.1", 8443, None);
        check("2001:db8::1", "2001:db8::1", 443, None);
        check("[2001:db8::1]:8443/[::1]", "2001:db8::1", 8443, Some("::1"));
    }

    #[test]
    fn its_certificate_is_trusted_pinned_or_any() {
        let certificate = |text: &str| text.parse::<MeshPeer>().map(|peer| peer.certificate);
        let pin = format!("sha256-raw:{}", "ab".repeat(32));
        let pinned = PeerCertificate::Pinned(pin.clone());
        assert_eq!(certificate(&format!("relay.example {pin}")), Ok(pinned));
        assert_eq!(certificate("relay.example any-certificate"), Ok(PeerCertificate::Any));
        for text in ["x sha256-raw:", "x sha256-raw:ab", "x any", "x ab"] {
            assert_eq!(certificate(text), Err(ParseMeshPeerError::Certificate), "{text}");
        }
    }

    #[test]
    fn what_is_no_relay_is_refused() {
        let refused = |text: &str| text.parse::<MeshPeer>().expect_err(text);
        for text in ["", " ", "/", "relay.example/", "/x", ":443", "https://relay.example", "a/b/c"]
        {
            assert_eq!(refused(text), ParseMeshPeerError::Host, "{text}");
        }
        for text in ["relay.example:", "relay.example:0", "relay.example:65536", "a:http"] {
            assert_eq!(refused(text), ParseMeshPeerError::Port, "{text}");
        }
    }
}
