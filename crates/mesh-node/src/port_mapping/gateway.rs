//! Which gateway the machine has.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_portmap::GATEWAY_PORT;

use crate::host::read;

/// Flags of a route: it is in use, and leads to a gateway.
const IS_GATEWAY: u16 = 0x1 | 0x2;

/// The gateway by which the machine reaches what is nowhere near, and its port for port mapping. Known on Linux only.
///
/// A public one is the provider's, and nobody to ask.
pub(crate) fn default_gateway() -> Option<SocketAddrV4> {
    let gateway = parse_default_gateway(&read("/proc/net/route"))?;
    gateway.is_private().then_some(SocketAddrV4::new(gateway, GATEWAY_PORT))
}

/// The gateway of the default route with the lowest metric among Linux's routes: a heading, then a line for each route, with
/// addresses as hexadecimal numbers in the machine's order of bytes. Default routes are the first.
fn parse_default_gateway(routes: &str) -> Option<Ipv4Addr> {
    let gateways = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, destination, gateway, flags, _, _, metric, mask, ..] = &fields[..] else {
            return None;
        };
        let is_default = parse_hex(destination)? == 0 && parse_hex(mask)? == 0;
        let is_gateway = u16::from_str_radix(flags, 16).ok()? & IS_GATEWAY == IS_GATEWAY;
        let gateway = Ipv4Addr::from(parse_hex(gateway)?.to_ne_bytes());
        (is_default && is_gateway).then_some((metric.parse::<u32>().ok()?, gateway))
    });
    gateways.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

fn parse_hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT \n";

    /// A line as Linux writes it.
    fn route(destination: [u8; 4], gateway: [u8; 4], flags: u16, metric: u32, mask: u32) -> String {
        let [destination, gateway] = [destination, gateway].map(u32::from_ne_bytes);
        let mask = u32::from_ne_bytes(mask.to_be_bytes());
        format!(
            "eth0\t{destination:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0 \n"
        )
    }

    fn check(routes: &[String], expected: Option<[u8; 4]>) {
        let text = format!("{HEADING}{}", routes.concat());
        assert_eq!(parse_default_gateway(&text), expected.map(Ipv4Addr::from));
    }

    #[test]
    fn the_gateway_is_that_of_the_default_route_with_the_lowest_metric() {
        let [near, far] = [[10, 0, 0, 1], [192, 168, 1, 1]];
        let lan = route([10, 0, 0, 0], [0; 4], 1, 0, 0xffff_ff00);
        check(&[route([0; 4], near, 3, 0, 0), lan.clone()], Some(near));
        check(&[route([0; 4], far, 3, 600, 0), route([0; 4], near, 3, 100, 0)], Some(near));
        check(&[lan], None);
        // By a subnet's gateway, down, of a link without gateway.
        check(&[route([10, 9, 0, 0], near, 3, 0, 0xffff_0000)], None);
        check(&[route([0; 4], near, 2, 0, 0)], None);
        check(&[route([0; 4], [0; 4], 1, 0, 0)], None);
        // Half of the addresses, by which some tunnels stand in for the default route.
        check(&[route([0; 4], near, 3, 0, 0x8000_0000)], None);
    }

    #[test]
    fn routes_that_cannot_be_read_are_passed_over() {
        let near = [10, 0, 0, 1];
        let broken =
            ["eth0\t0\n", "\n", "eth0 zz 1 3 0 0 0 0 0\n", "eth0 0 123456789 3 0 0 0 0 0\n"];
        let broken = broken.map(ToOwned::to_owned);
        check(&[&broken[..], &[route([0; 4], near, 3, 0, 0)]].concat(), Some(near));
        check(&broken, None);
        assert_eq!(parse_default_gateway(""), None);
    }
}
