//! The network interface of the daemon: a TUN device with the node's addresses, through which every program of the
//! machine reaches the tailnet and peers reach the machine.
//!
//! The kernel routes the tailnet's ranges there by itself, for they are those of the addresses' prefixes; subnets that peers
//! route are told to it one by one. All of it goes when the daemon ends.

mod netlink;
mod tun;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::IpAddr;

use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use mesh_node::{Node, WatchEvent};
use mesh_wire::NodeId;
use rustix::io::Errno;
use tokio::sync::oneshot;
use tracing::{info, warn};

use netlink::Netlink;
pub(super) use tun::Tun;

/// Longest packet: that of a tailnet's tunnels.
const MTU_BYTES: u16 = 1280;

/// The ranges that tailnets give their nodes addresses from.
const TAILNET_RANGES: [&str; 2] = ["100.64.0.0/10", "fd7a:115c:a1e0::/48"];

/// Most subnets of peers that the kernel is told of, should peers route very many.
const ROUTES_MAX: usize = 4096;

/// The interface, as it stands.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    index: u32,
    netlink: Netlink,
    addresses: BTreeSet<IpNet>,
    routes: BTreeSet<IpNet>,
    /// Ends when the device is gone.
    gone: oneshot::Receiver<()>,
}

impl Interface {
    /// Makes the interface, and the device for the node.
    ///
    /// # Errors
    /// With what to do, without the right to make one.
    pub(super) fn open(name: &str) -> anyhow::Result<(Self, Tun)> {
        let (alive, gone) = oneshot::channel();
        let tun = Tun::open(name, MTU_BYTES, alive).map_err(|error| what_to_do(name, error))?;
        let index = tun.index().context("interface is gone already")?;
        let netlink = Netlink::connect().context("cannot speak to the kernel by netlink")?;
        let (addresses, routes) = (BTreeSet::new(), BTreeSet::new());
        Ok((Self { name: name.to_owned(), index, netlink, addresses, routes, gone }, tun))
    }

    async fn follow(&mut self, node: &Node, accept_routes: bool) -> anyhow::Result<Infallible> {
        let mut watch = node.watch();
        let mut by_router = BTreeMap::new();
        loop {
            let event = tokio::select! {
                biased;
                // The other end is never sent to.
                _ = &mut self.gone => bail!("interface {} was taken away", self.name),
                event = watch.next() => event?,
            };
            match event {
                // The first event is one of these.
                WatchEvent::State(_) | WatchEvent::Lagged if accept_routes => {
                    let peers = node.status().await?.peers;
                    by_router = peers.iter().map(|peer| routed_by(&peer.node)).collect();
                }
                WatchEvent::Peer(peer) if accept_routes => by_router.extend([routed_by(&peer)]),
                WatchEvent::PeerRemoved(id) => drop(by_router.remove(&id)),
                WatchEvent::State(_)
                | WatchEvent::Lagged
                | WatchEvent::Peer(_)
                | WatchEvent::SelfNode(_) => {}
            }
            by_router.retain(|_, routes| !routes.is_empty());
            self.set_addresses(&node.ips());
            self.set_routes(by_router.values().flatten().take(ROUTES_MAX).copied().collect());
        }
    }

    fn set_addresses(&mut self, addresses: &[IpAddr]) {
        let wanted: BTreeSet<IpNet> =
            addresses.iter().map(|address| with_range(*address)).collect();
        if wanted == self.addresses {
            return;
        }
        // With its last address of a family the kernel forgets an interface's routes, too.
        self.set_routes(BTreeSet::new());
        for old in self.addresses.difference(&wanted) {
            let removed = self.netlink.remove_address(self.index, *old);
            self.tell(&removed, "remove an address from");
        }
        for new in wanted.difference(&self.addresses) {
            let added = self.netlink.add_address(self.index, *new);
            if self.tell(&added, "give an address to") {
                info!(interface = self.name, "interface has {}", new.addr());
            }
        }
        self.addresses = wanted;
    }

    fn set_routes(&mut self, wanted: BTreeSet<IpNet>) {
        if wanted == self.routes {
            return;
        }
        for old in self.routes.difference(&wanted) {
            let removed = self.netlink.remove_route(self.index, *old);
            self.tell(&removed, "remove a route from");
        }
        for new in wanted.difference(&self.routes) {
            let added = self.netlink.add_route(self.index, *new);
            self.tell(&added, "lead a subnet to");
        }
        self.routes = wanted;
    }

    /// Says what the kernel did not do, such as IPv6 on a machine without.
    fn tell(&self, done: &io::Result<()>, what: &str) -> bool {
        if let Err(error) = done {
            let error: &dyn std::error::Error = error;
            warn!(error, interface = self.name, "cannot {what} the interface");
        }
        done.is_ok()
    }
}

/// Gives an interface the node's addresses, and the kernel routes to the subnets of peers if they are wanted, for as long as the
/// node lives. Without an interface there is nothing to do.
///
/// # Errors
/// When the interface is gone.
pub(super) async fn follow(
    interface: Option<&mut Interface>,
    node: &Node,
    accept_routes: bool,
) -> anyhow::Result<Infallible> {
    match interface {
        Some(interface) => interface.follow(node, accept_routes).await,
        None => pending().await,
    }
}

/// The subnets that a peer routes. What it offers as an exit node is not among them.
fn routed_by(peer: &mesh_wire::Node) -> (NodeId, Vec<IpNet>) {
    let allowed = peer.allowed_ips.iter().flatten().copied();
    let is_subnet = |net: &IpNet| net.prefix_len() > 0 && !peer.addresses.contains(net);
    (peer.id, allowed.filter(is_subnet).map(|net| net.trunc()).collect())
}

/// An address as the interface has it: with the tailnet's range, to which the kernel then makes a route.
fn with_range(address: IpAddr) -> IpNet {
    let ranges = TAILNET_RANGES.map(|range| range.parse::<IpNet>().expect("invariant: a range"));
    let range = ranges.into_iter().find(|range| range.contains(&address));
    let length = range.map(|range| range.prefix_len());
    let net = length.and_then(|length| IpNet::new(address, length).ok());
    net.unwrap_or_else(|| address.into())
}

fn what_to_do(name: &str, error: io::Error) -> anyhow::Error {
    let advice = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "run it as root, or with the capability CAP_NET_ADMIN; or go without: --tun=false"
        }
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            "there is no /dev/net/tun: `modprobe tun`, or give it to the container; or go without: --tun=false"
        }
        Some(Errno::BUSY) => "the name is in use: choose another by --tun=NAME",
        _ => return anyhow!(error).context(format!("cannot make the interface {name}")),
    };
    anyhow!("cannot make the interface {name}: {advice}")
}

#[cfg(test)]
mod tests;
