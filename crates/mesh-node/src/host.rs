//! What the machine says of itself: its name, its system, its addresses, its clock.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_wire::{EndpointType, Hostinfo};

/// Most addresses that are told, should a machine have thousands.
const ADDRESSES_MAX: usize = 64;

/// What the control server is told of the machine and the program.
pub(crate) fn hostinfo(hostname: String, tags: Vec<String>, routes: Vec<IpNet>) -> Hostinfo {
    let machine = std::env::consts::ARCH;
    Hostinfo {
        ipn_version: concat!("1.102.0-meshnode-", env!("CARGO_PKG_VERSION")).to_owned(),
        os: std::env::consts::OS.to_owned(),
        app: "mesh-node".to_owned(),
        hostname,
        machine: machine.to_owned(),
        go_arch: go_arch(machine).to_owned(),
        routable_ips: routes,
        request_tags: tags,
        userspace: Some(true),
        userspace_router: Some(true),
        no_logs_no_support: true,
        ..Hostinfo::default()
    }
}

fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the one place where a node reads the wall clock")]
pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::now()
}

/// The program's name, which is a node's hostname unless it is given another.
pub(crate) fn program_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_stem().map(|name| name.to_string_lossy());
    let name = name.unwrap_or_default().to_ascii_lowercase();
    if name.is_empty() { "meshnode".to_owned() } else { name }
}

/// Where peers on the same networks may reach a socket of this port. Loopback addresses only if there are no others.
pub(crate) fn local_endpoints(port: u16) -> Vec<(SocketAddr, EndpointType)> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(if_addrs::Interface::ip).filter(is_told);
    let (loopback, others): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_loopback);
    let told = if others.is_empty() { loopback } else { others };
    let told = told.into_iter().take(ADDRESSES_MAX);
    told.map(|address| (SocketAddr::new(address, port), EndpointType::LOCAL)).collect()
}

/// Whether peers may be told of an address: not one of a tailnet, and none that means something on one link alone.
fn is_told(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_of_tailnet = first == 100 && second & 0xc0 == 64;
            !is_of_tailnet && !address.is_link_local()
        }
        IpAddr::V6(address) => {
            let is_of_tailnet = address.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0];
            !is_of_tailnet && !address.is_unicast_link_local()
        }
    }
}
