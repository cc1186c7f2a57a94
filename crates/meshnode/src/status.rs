//! `meshnode status` and `meshnode ip`.

use std::net::IpAddr;

use anyhow::anyhow;
use clap::{ArgAction, Args};
use mesh_cli::{Output, list, table};
use mesh_node::loopback::{BackendState, PeerStatus, Status};

use crate::client::{self, LocalClient};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Whether to show the peers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    peers: bool,
}

impl StatusArgs {
    pub(crate) async fn run(self, client: &LocalClient, output: Output) -> anyhow::Result<()> {
        let status = client.status(self.peers).await?;
        output.value(&status, || show(&status))
    }
}

fn show(status: &Status) -> String {
    let state = match status.backend_state {
        BackendState::Starting => Some("Waiting for the control server".to_owned()),
        BackendState::NeedsLogin if !status.auth_url.is_empty() => {
            Some(format!("Log in at {}", status.auth_url))
        }
        BackendState::NeedsMachineAuth => {
            Some("An admin of the tailnet has to approve this node".to_owned())
        }
        BackendState::NeedsLogin | BackendState::Running => None,
    };
    let health = status.health.iter().map(|text| format!("Problem: {text}"));
    let table = status.self_node.as_ref().map(|node| nodes(node, status));
    state.into_iter().chain(health).chain(table).collect::<Vec<_>>().join("\n")
}

/// The node itself and its peers, by name.
fn nodes(own: &PeerStatus, status: &Status) -> String {
    let mut peers: Vec<&PeerStatus> = status.peer.values().collect();
    peers.sort_by(|one, other| one.dns_name.cmp(&other.dns_name));
    let own = row(own, status, "this node".to_owned());
    let peers = peers.into_iter().map(|peer| row(peer, status, connection(peer)));
    let rows = std::iter::once(own).chain(peers);
    table(["address", "name", "owner", "os", "connection"], rows)
}

fn row(node: &PeerStatus, status: &Status, connection: String) -> [String; 5] {
    let label = node.dns_name.split('.').next().unwrap_or_default();
    let owner = if node.tags.is_empty() {
        status.user.get(&node.user_id).map(|user| user.login_name.clone()).unwrap_or_default()
    } else {
        list(&node.tags)
    };
    let address = node.tailscale_ips.first().map(IpAddr::to_string).unwrap_or_default();
    [address, label.to_owned(), owner, node.os.clone(), connection]
}

/// How data goes to a peer, or why it does not.
fn connection(peer: &PeerStatus) -> String {
    match (peer.active, peer.cur_addr.as_str()) {
        _ if peer.expired => "key expired".to_owned(),
        (true, "") => format!("relay {}", peer.relay),
        (true, address) => format!("direct {address}"),
        (false, _) if peer.online => "idle".to_owned(),
        (false, _) => "offline".to_owned(),
    }
}

#[derive(Debug, Args)]
pub(crate) struct IpArgs {
    /// Only the IPv4 address
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// Only the IPv6 address
    #[arg(short = '6')]
    v6: bool,
    /// Only the first address
    #[arg(short = '1')]
    first: bool,
    /// A peer, by its name or an address
    peer: Option<String>,
}

impl IpArgs {
    pub(crate) async fn run(self, client: &LocalClient, output: Output) -> anyhow::Result<()> {
        let status = client.status(self.peer.is_some()).await?;
        let mut addresses = match &self.peer {
            None => status.tailscale_ips,
            Some(name) => addresses_of(status, name)
                .ok_or_else(|| anyhow!("no node is named `{name}`: `meshnode status` shows all"))?,
        };
        addresses.retain(|ip| !(self.v4 && ip.is_ipv6() || self.v6 && ip.is_ipv4()));
        if self.first {
            addresses.truncate(1);
        }
        if addresses.is_empty() {
            return Err(anyhow!("there is no such address yet: `meshnode status` tells why"));
        }
        output.value(&addresses, || {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })
    }
}

/// The addresses of a node by its name or by one of them.
fn addresses_of(status: Status, name: &str) -> Option<Vec<IpAddr>> {
    let node = match name.parse::<IpAddr>() {
        Ok(ip) => {
            let nodes = status.self_node.into_iter().chain(status.peer.into_values());
            nodes.into_iter().find(|node| node.tailscale_ips.contains(&ip))
        }
        Err(_) => client::find(status, name),
    };
    node.map(|node| node.tailscale_ips)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ip: &str) -> PeerStatus {
        PeerStatus {
            dns_name: format!("{name}.example."),
            tailscale_ips: vec![ip.parse().unwrap()],
            os: "linux".to_owned(),
            online: true,
            ..PeerStatus::default()
        }
    }

    fn status(peers: Vec<PeerStatus>) -> Status {
        let by_key = |(index, mut peer): (usize, PeerStatus)| {
            // Keys order peers otherwise than names do.
            let digit = 9 - index;
            peer.public_key = format!("nodekey:{}", digit.to_string().repeat(64)).parse().unwrap();
            (peer.public_key, peer)
        };
        Status {
            backend_state: BackendState::Running,
            self_node: Some(node("me", "100.64.0.1")),
            peer: peers.into_iter().enumerate().map(by_key).collect(),
            ..Status::default()
        }
    }

    #[test]
    fn peers_are_shown_by_name_with_the_way_to_each() {
        let direct = PeerStatus {
            active: true,
            cur_addr: "192.0.2.1:41641".to_owned(),
            tags: vec!["tag:a".to_owned(), "tag:b".to_owned()],
            ..node("direct", "100.64.0.3")
        };
        let relayed =
            PeerStatus { active: true, relay: "fra".to_owned(), ..node("relayed", "100.64.0.4") };
        let offline = PeerStatus { online: false, ..node("away", "100.64.0.5") };
        let expired = PeerStatus { active: true, expired: true, ..node("gone", "100.64.0.6") };
        let shown =
            show(&status(vec![relayed, node("idle", "100.64.0.2"), direct, offline, expired]));
        assert_eq!(
            shown,
            "\
ADDRESS     NAME     OWNER         OS     CONNECTION
100.64.0.1  me       -             linux  this node
100.64.0.5  away     -             linux  offline
100.64.0.3  direct   tag:a, tag:b  linux  direct 192.0.2.1:41641
100.64.0.6  gone     -             linux  key expired
100.64.0.2  idle     -             linux  idle
100.64.0.4  relayed  -             linux  relay fra"
        );
    }

    #[test]
    fn what_there_is_to_do_comes_first() {
        let status = Status {
            backend_state: BackendState::NeedsLogin,
            auth_url: "https://control.example.com/a/1".to_owned(),
            ..Status::default()
        };
        assert!(show(&status).starts_with("Log in at https://control.example.com/a/1"));
    }

    #[test]
    fn a_peer_is_found_by_name_and_by_address() {
        let found = |name: &str| addresses_of(status(vec![node("web", "100.64.0.2")]), name);
        let web: IpAddr = "100.64.0.2".parse().unwrap();
        assert_eq!(found("web"), Some(vec![web]));
        assert_eq!(found("100.64.0.2"), Some(vec![web]));
        assert_eq!(found("100.64.0.9"), None);
    }
}
