//! A node as the server knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use mesh_keys::{DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};

use crate::{Hostinfo, NodeId, PreauthKeyId, SessionId, Tag, Timestamp, UserId};

/// Who a node belongs to: a user or its tags, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A person's node.
    User(UserId),
    /// A node of its tags: at least one, sorted.
    Tags(Vec<Tag>),
}

impl Owner {
    /// The node's tags; none for a person's node.
    pub fn tags(&self) -> &[Tag] {
        match self {
            Self::User(_) => &[],
            Self::Tags(tags) => tags,
        }
    }

    /// The user a client shows for the node.
    pub fn user(&self) -> UserId {
        match self {
            Self::User(user) => *user,
            Self::Tags(_) => UserId::TAGGED_DEVICES,
        }
    }
}

/// How a node came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterMethod {
    /// With a preauth key.
    AuthKey,
    /// An admin approved its login.
    Cli,
    /// A person logged in at an identity provider.
    Oidc,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique for the life of the tailnet.
    pub id: NodeId,
    /// The installation it belongs to: only channels of this key speak for it.
    pub machine_key: MachinePublic,
    /// Its current key; unique.
    pub node_key: NodePublic,
    /// The key before the last rotation, whose late requests still come in.
    pub previous_node_key: Option<NodePublic>,
    /// Its key in NAT traversal; zero until its first map request.
    pub disco_key: DiscoPublic,
    /// Its tailnet-lock key; zero without one.
    pub network_lock_key: NetworkLockPublic,
    /// What it says about its machine.
    pub hostinfo: Hostinfo,
    /// Its DNS label; unique.
    pub given_name: String,
    /// Whether an admin chose `given_name`, so that it no longer follows the hostname.
    pub name_is_chosen: bool,
    /// Its IPv4 address, unless the tailnet has none.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, unless the tailnet has none.
    pub ipv6: Option<Ipv6Addr>,
    /// Who it belongs to.
    pub owner: Owner,
    /// How it came in.
    pub register_method: RegisterMethod,
    /// The key it came in with, while that exists.
    pub preauth_key: Option<PreauthKeyId>,
    /// Whether it is removed once it has been away for a while.
    pub ephemeral: bool,
    /// Capability version of its client.
    pub capability_version: u32,
    /// Where peers may try to reach it, in its own order.
    pub endpoints: Vec<SocketAddr>,
    /// The DERP region it listens on.
    pub home_derp: Option<u32>,
    /// Routes an admin lets it carry, sorted.
    pub approved_routes: Vec<IpNet>,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// From when on its key counts no more.
    pub expires_at: Option<Timestamp>,
    /// When its last map stream ended; `None` while one is open, and before the first.
    pub last_seen_at: Option<Timestamp>,
    /// The map stream that holds it. Lives in memory only: `None` means offline.
    pub session: Option<SessionId>,
}

impl Node {
    /// Whether its key no longer counts at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Whether peers are told of it: once it has sent a disco key, for a peer that learns the key later
    /// must rebuild its whole netmap.
    pub fn is_announced(&self) -> bool {
        !self.disco_key.is_zero()
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}
