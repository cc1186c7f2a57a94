//! Values of keys that have rules of their own: URLs, domain names, secrets, file modes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::Uri;

use crate::value::Scalar;

/// A text that must not be shown: `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Scalar for Secret {
    const SHAPE: &'static str = "text";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

/// An absolute `http` or `https` URL without user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    uri: Uri,
}

impl HttpUrl {
    /// The whole URL as text, with a path.
    pub fn to_text(&self) -> String {
        self.uri.to_string()
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// The host as in the URL, in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> String {
        let host = self.uri.host().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
    }

    /// The port, by default the scheme's.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Path and query; `/` where the URL has none.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// Scheme, host and port as text, without a slash at the end: what paths are appended to.
    pub fn origin(&self) -> String {
        let scheme = if self.is_https() { "https" } else { "http" };
        format!("{scheme}://{}", self.uri.authority().map_or("", http::uri::Authority::as_str))
    }
}

impl Scalar for HttpUrl {
    const SHAPE: &'static str = "an http:// or https:// URL such as https://mesh.example.com";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        if !matches!(uri.scheme_str()?, "http" | "https") {
            return None;
        }
        let authority = uri.authority()?;
        let host = authority.host();
        let written_port = authority.as_str().strip_prefix(host)?;
        let port_is_right = written_port.is_empty() || authority.port_u16().is_some();
        (is_host(host) && port_is_right).then_some(Self { uri })
    }
}

/// Whether a URL's host is a name or an address; IPv6 addresses stand in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok() || DomainName::parse(host).is_some(),
    }
}

/// A domain name in lower case without the dot at the end.
///
/// Labels have 1 to 63 letters, digits, hyphens (not at their ends) and underscores; the whole has
/// at most 253 characters (RFC 1035 section 2.3.4). International names are written in punycode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `host` is this domain or lies under it; case does not matter.
    pub fn contains(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host.strip_suffix(&self.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        is_name.then(|| Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scalar for DomainName {
    const SHAPE: &'static str = "a domain name such as corp.example.com";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        Self::parse(text)
    }
}

/// The name or the address of a host, as a certificate and a DERP map hold it; IPv6 addresses without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// The text of it, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Host {
    const SHAPE: &'static str = "a host such as relay.example.com or 192.0.2.7";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        let address = text.trim_matches(['[', ']']).parse::<IpAddr>();
        let name = || DomainName::parse(text).map(|name| name.to_string());
        address.map(|address| address.to_string()).ok().or_else(name).map(Self)
    }
}

/// A resolver for clients: an IP address, one with a port, or a DNS-over-HTTPS URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nameserver(String);

impl Nameserver {
    /// The text as clients take it (`Addr` of tailcfg's resolver).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Nameserver {
    const SHAPE: &'static str = "an IP address or a DNS-over-HTTPS URL";

    fn from_text(text: &str, base: &Path) -> Option<Self> {
        let is_nameserver = text.parse::<IpAddr>().is_ok()
            || text.parse::<SocketAddr>().is_ok()
            || HttpUrl::from_text(text, base).is_some();
        is_nameserver.then(|| Self(text.to_owned()))
    }
}

/// Permission bits of a file, at most `0o777`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// The bits as `chmod` takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Scalar for FileMode {
    const SHAPE: &'static str = "permission bits in octal such as \"0770\"";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let only_digits = digits.bytes().all(|b| b.is_ascii_digit());
        let bits = u32::from_str_radix(digits, 8).ok()?;
        (only_digits && bits <= 0o777).then_some(Self(bits))
    }
}

/// Declares an enum whose variants are written as fixed words; the first word of each is its name.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $word:literal $(| $other:literal)*,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// The word for it in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl $crate::value::Scalar for $name {
            const SHAPE: &'static str = concat!("one of these:" $(, " ", $word)+);

            fn from_text(text: &str, _base: &std::path::Path) -> Option<Self> {
                match text.to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use choice;

#[cfg(test)]
mod tests;
