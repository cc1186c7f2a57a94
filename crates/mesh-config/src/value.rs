//! From a node of the document to a typed value.
//!
//! A [`Scalar`] is read from one text, a [`Value`] from a node of any form. Texts come from YAML,
//! the environment and flags alike, so nothing here depends on how YAML would guess their type.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::document::{Content, Node, Position};
use crate::duration::parse_duration;

/// How much of a wrong value an error repeats, in characters.
const QUOTE_CHARS_MAX: usize = 60;

/// What is wrong with a value, each with its place if it is in a file.
pub(crate) type Faults = Vec<(Option<Position>, String)>;

/// What reading a value needs and what it found wrong.
pub(crate) struct Reading<'a> {
    /// The directory that relative paths are relative to.
    pub(crate) base: &'a Path,
    pub(crate) faults: Faults,
}

impl Reading<'_> {
    /// Notes a fault of `node` and gives nothing back in its place.
    pub(crate) fn fault<T>(&mut self, node: &Node, message: String) -> Option<T> {
        self.faults.push((node.position, message));
        None
    }

    /// Notes that `node` is not of the wanted shape.
    fn mismatch<T>(&mut self, node: &Node, shape: &str) -> Option<T> {
        let found = match &node.content {
            Content::Null => "nothing".to_owned(),
            Content::Text(text) => quote(text),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a section".to_owned(),
        };
        self.fault(node, format!("{found} is not {shape}"))
    }
}

/// A text in quotes, shortened where it is long.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A value that is written as one text.
pub(crate) trait Scalar: Sized {
    /// What the text must look like, completing "... is not ".
    const SHAPE: &'static str;

    /// Reads the text; relative paths are relative to `base`.
    fn from_text(text: &str, base: &Path) -> Option<Self>;
}

/// A value of a key.
pub(crate) trait Value: Sized {
    /// Reads a node of the document; what is wrong goes to `reading`.
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self>;

    /// Makes a node of a text from the environment or a flag, or tells why that is impossible.
    fn node(text: &str) -> Result<Node, String> {
        Ok(Node::text(text))
    }
}

impl<T: Scalar> Value for T {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let value = node.as_text().and_then(|text| T::from_text(text, reading.base));
        value.or_else(|| reading.mismatch(node, T::SHAPE))
    }
}

/// Unset when it is written as empty text.
impl<T: Scalar> Value for Option<T> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        if node.as_text() == Some("") { Some(None) } else { T::read(node, reading).map(Some) }
    }
}

/// A list in YAML, or one text with commas between the elements.
impl<T: Scalar> Value for Vec<T> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let split;
        let elements = match &node.content {
            Content::List(elements) => elements,
            Content::Text(text) => {
                split = split_commas(text, node.position);
                &split
            }
            Content::Null | Content::Map(_) => {
                return reading.fault(node, format!("a list is wanted, each {}", T::SHAPE));
            }
        };
        read_all(elements, reading, T::read)
    }
}

fn split_commas(text: &str, position: Option<Position>) -> Vec<Node> {
    let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
    elements.map(|element| Node { position, ..Node::text(element) }).collect()
}

/// Reads every element, so that all faulty ones are told; `None` if there were any.
pub(crate) fn read_all<'n, N, T, C: FromIterator<T>>(
    nodes: impl IntoIterator<Item = &'n N>,
    reading: &mut Reading<'_>,
    read: impl Fn(&'n N, &mut Reading<'_>) -> Option<T>,
) -> Option<C>
where
    N: 'n,
{
    let values: Vec<Option<T>> = nodes.into_iter().map(|node| read(node, reading)).collect();
    values.into_iter().collect()
}

/// A section in YAML whose keys are data; in the environment the same as YAML on one line.
impl<K: Scalar + Ord, V: Value> Value for BTreeMap<K, V> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let Content::Map(entries) = &node.content else {
            return reading.mismatch(node, "a section of keys and values");
        };
        read_all(entries, reading, |(name, value), reading| {
            let key = Node { position: Some(name.position), ..Node::text(&name.text) };
            let key = K::read(&key, reading);
            let value = V::read(value, reading);
            key.zip(value)
        })
    }

    fn node(text: &str) -> Result<Node, String> {
        Node::from_yaml(text)
    }
}

/// Declares scalars that are read by a function from text to an option.
macro_rules! scalars {
    ($($type:ty: $shape:literal, $read:expr;)+) => {$(
        impl Scalar for $type {
            const SHAPE: &'static str = $shape;

            fn from_text(text: &str, _base: &Path) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text)
            }
        }
    )+};
}

scalars! {
    String: "text", |text| Some(text.to_owned());
    bool: "true or false", parse_bool;
    u16: "a whole number up to 65535", |text| text.parse().ok();
    u32: "a whole number up to 4294967295", |text| text.parse().ok();
    usize: "a whole number", |text| text.parse().ok();
    Duration: "a duration such as 30s, 15m, 24h or 7d", |text| parse_duration(text).ok();
    SocketAddr: "an address and port such as 0.0.0.0:8080, [::]:8080 or :8080", parse_listen;
    Ipv4Addr: "an IPv4 address", |text| text.parse().ok();
    Ipv6Addr: "an IPv6 address", |text| text.parse().ok();
    IpAddr: "an IP address", |text| text.parse().ok();
    Ipv4Net: "an IPv4 prefix such as 100.64.0.0/10", |text| Some(text.parse::<Ipv4Net>().ok()?.trunc());
    Ipv6Net: "an IPv6 prefix such as fd7a:115c:a1e0::/48", |text| Some(text.parse::<Ipv6Net>().ok()?.trunc());
    IpNet: "an IP address or prefix such as 10.0.0.0/8", parse_net;
}

impl Scalar for PathBuf {
    const SHAPE: &'static str = "the path of a file";

    fn from_text(text: &str, base: &Path) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| base.join(text))
    }
}

/// The spellings of YAML 1.1 and of Go's `ParseBool` that people use.
fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// An address to listen on; Go's `:8080` means every address, and `localhost` is 127.0.0.1.
fn parse_listen(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = match host {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return None,
    };
    Some(SocketAddr::new(host, port.parse().ok()?))
}

fn parse_net(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) => Some(net.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

#[cfg(test)]
mod tests;
