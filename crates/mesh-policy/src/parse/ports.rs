//! Protocols and ports, as `acls`, `grants` and their tests write them.

use std::borrow::Cow;

use crate::policy::{IpProtocolPorts, PortRange, Ports};
use crate::problem::quoted;

/// Protocols that have names. The first name of a number is the usual one.
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipv4", 4),
    ("ip-in-ip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("fc", 133),
];

/// Reads a protocol: a name of any case, or a number from 1 to 255.
///
/// # Errors
/// What is wrong with it, in the words of the service.
pub(crate) fn parse_protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, number)) = named {
        return Ok(*number);
    }
    if text == "*" {
        return Err("proto name \"*\" not known; use protocol number 0-255 or protocol name (icmp, tcp, udp, etc.)".to_owned());
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!(
            "invalid protocol number: {} must be a known protocol name or valid protocol number 0-255",
            quoted(text)
        ));
    }
    if text.starts_with('0') {
        return Err(format!("leading 0 not permitted in protocol number: {}", quoted(text)));
    }
    text.parse().map_err(|_| {
        let digits = &text[..text.len().min(20)];
        format!("protocol number out of range (0-255): {digits}")
    })
}

/// Whether rules for a protocol may name ports.
pub(super) fn has_ports(protocol: Option<u8>) -> bool {
    matches!(protocol, None | Some(6 | 17 | 132))
}

/// Reads ports: `*`, or a list of ports and ranges with commas between.
///
/// # Errors
/// What is wrong with them, in the words of the service.
pub(crate) fn parse_ports(text: &str) -> Result<Ports, &'static str> {
    if text == "*" {
        return Ok(Ports::One(PortRange::ALL));
    }
    if !text.as_bytes().contains(&b',') {
        return parse_range(text).map(Ports::One);
    }
    text.split(',').map(|part| parse_range(part.trim())).collect::<Result<_, _>>().map(Ports::Many)
}

fn parse_range(text: &str) -> Result<PortRange, &'static str> {
    let Some((first, last)) = text.split_once('-') else {
        let port = parse_port(text)?;
        if port == 0 {
            return Err("first port must be >0, or use '*' for wildcard");
        }
        return Ok(PortRange { first: port, last: port });
    };
    if first.is_empty() || last.is_empty() || last.contains('-') {
        return Err("invalid port range format");
    }
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if first > last {
        return Err("invalid port range: first port is greater than last port");
    }
    Ok(PortRange { first, last })
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("invalid first integer");
    }
    text.parse().map_err(|_| "port number out of range")
}

/// Splits a destination of `acls` or `tests` at its last colon into selector and ports. Brackets around an IPv6
/// address go.
///
/// # Errors
/// What is wrong with it, in the words of the service.
pub(crate) fn split_destination(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    let Some((selector, ports)) = text.rsplit_once(':') else {
        return Err("hostport must contain a colon".to_owned());
    };
    if selector.is_empty() {
        return Err("input cannot start with a colon character".to_owned());
    }
    if ports.is_empty() {
        return Err("input cannot end with a colon character".to_owned());
    }
    if !selector.contains(['[', ']']) {
        return Ok((Cow::Borrowed(selector), ports));
    }
    match unbracketed(selector) {
        Some(selector) => Ok((selector, ports)),
        None => Err(format!(
            "square brackets are only valid around IPv6 addresses: {}",
            quoted(selector)
        )),
    }
}

/// `[v6]` or `[v6]/length` without its brackets.
fn unbracketed(text: &str) -> Option<Cow<'_, str>> {
    let (address, rest) = text.strip_prefix('[')?.split_once(']')?;
    address.parse::<std::net::Ipv6Addr>().ok()?;
    match rest {
        "" => Some(Cow::Borrowed(address)),
        _ => rest.starts_with('/').then(|| Cow::Owned(format!("{address}{rest}"))),
    }
}

/// Reads an entry of a grant's `ip`: `*`, ports, or `protocol:ports`.
///
/// # Errors
/// What is wrong with it, in the words of the service.
pub(super) fn parse_protocol_ports(text: &str) -> Result<IpProtocolPorts, String> {
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    if colons > 1 {
        let parts = text.replace(':', " ");
        let count = colons + 1;
        return Err(format!(
            "expected only one colon in Internet protocol and port type, got: [{}]({count})",
            quoted(&parts).trim_matches('"')
        ));
    }
    let (proto, ports) = match text.split_once(':') {
        Some((proto, ports)) => (Some(parse_lower_protocol(proto)?), ports),
        None => (None, text),
    };
    match parse_ports(ports) {
        Ok(ports) => Ok(IpProtocolPorts { proto, ports }),
        Err(error) => Err(format!("port range {}: {error}", quoted(ports))),
    }
}

/// A grant's protocol: names are in lower case.
fn parse_lower_protocol(text: &str) -> Result<u8, String> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!(
            "invalid protocol number: {} must be a known protocol name or valid protocol number 0-255",
            quoted(text)
        ));
    }
    parse_protocol(text)
}
