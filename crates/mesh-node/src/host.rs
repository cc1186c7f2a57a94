//! What the machine says of itself: its name, its system, its addresses, its clock.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_wire::{EndpointType, Hostinfo};

/// Most addresses that are told, should a machine have thousands.
const ADDRESSES_MAX: usize = 64;

/// Most bytes that are read of what a system says of itself.
const RELEASE_BYTES_MAX: u64 = 16 << 10;

/// Files that container runtimes leave in their containers.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// What the control server is told of the machine and the program.
///
/// Source: tailscale `hostinfo/hostinfo.go`, `hostinfo_linux.go`.
pub(crate) fn hostinfo(
    hostname: String,
    mut tags: Vec<String>,
    mut routes: Vec<IpNet>,
) -> Hostinfo {
    tags.sort();
    tags.dedup();
    routes.sort();
    routes.dedup();
    let machine = std::env::consts::ARCH;
    let release = read("/etc/os-release");
    let release = |key| release_value(&release, key).to_owned();
    Hostinfo {
        ipn_version: concat!("1.102.0-meshnode-", env!("CARGO_PKG_VERSION")).to_owned(),
        os: os().to_owned(),
        os_version: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        container: Some(CONTAINER_MARKS.into_iter().any(|path| Path::new(path).exists())),
        distro: release("ID"),
        distro_version: release("VERSION_ID"),
        distro_code_name: release("VERSION_CODENAME"),
        app: "mesh-node".to_owned(),
        hostname,
        machine: machine.to_owned(),
        go_arch: go_arch(machine).to_owned(),
        routable_ips: routes,
        request_tags: tags,
        userspace: Some(true),
        userspace_router: Some(true),
        app_connector: Some(false),
        state_encrypted: Some(false),
        no_logs_no_support: true,
        ..Hostinfo::default()
    }
}

/// The operating system's name as clients write it.
fn os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "macOS",
        "ios" => "iOS",
        other => other,
    }
}

/// The beginning of a file that says something of the system; nothing if there is no such file.
pub(crate) fn read(path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        // What cannot be read is not told.
        file.take(RELEASE_BYTES_MAX).read_to_end(&mut text).ok();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The value of a key in the text of `os-release`, or nothing.
fn release_value<'a>(text: &'a str, key: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\''])
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
    let name = Path::new(&program).file_stem().map(|name| name.to_string_lossy());
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
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_of_tailnet(*address) && !is_link_local
}

/// Whether an address is of the ranges that tailnets give their nodes addresses from.
pub(crate) fn is_of_tailnet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(address) => address.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}
