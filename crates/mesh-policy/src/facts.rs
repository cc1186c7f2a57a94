//! What policy knows about users and nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Node, NodeId, Owner, User, UserId};

/// What a user may do in the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing but what policy gives.
    #[default]
    Member,
    /// Administers the tailnet.
    Admin,
    /// Owns the tailnet.
    Owner,
}

/// A user as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFacts {
    /// The user.
    pub id: UserId,
    /// Unique name.
    pub name: Arc<str>,
    /// May be empty.
    pub email: Arc<str>,
    /// The identity provider's id for the user; may be empty.
    pub provider_id: Arc<str>,
    /// What it may do.
    pub role: Role,
}

impl UserFacts {
    /// The login name: the email address, else the name.
    pub fn login(&self) -> &str {
        if self.email.is_empty() { &self.name } else { &self.email }
    }
}

impl From<&User> for UserFacts {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            name: user.name.as_str().into(),
            email: user.email.as_str().into(),
            provider_id: user.provider_id.as_str().into(),
            role: Role::default(),
        }
    }
}

/// Who a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOwner {
    /// A user.
    User(UserId),
    /// Its tags, sorted; never empty.
    Tags(Arc<[Arc<str>]>),
}

/// What conditions of postures are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `node:os`, as the client names it: `linux`, `macOS`.
    pub os: Arc<str>,
    /// `node:osVersion`.
    pub os_version: Arc<str>,
    /// `node:tsVersion`.
    pub client_version: Arc<str>,
}

/// A node as policy sees it. Nodes registered earlier have lower ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Who it belongs to.
    pub owner: NodeOwner,
    /// Its IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, if it has one.
    pub ipv6: Option<Ipv6Addr>,
    /// Routes it offers and may carry, sorted, each once: `0.0.0.0/0` and `::/0` make it an exit node, the others are
    /// subnet routes.
    pub active_routes: Arc<[IpNet]>,
    /// Whether it is connected: a router that is not carries nothing.
    pub online: bool,
    /// Its machine.
    pub device: Arc<Device>,
}

impl NodeFacts {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// Its active routes but the default routes.
    pub fn subnet_routes(&self) -> impl Iterator<Item = IpNet> {
        self.active_routes.iter().copied().filter(|route| route.prefix_len() > 0)
    }

    /// Whether it carries traffic to the Internet.
    pub fn is_exit_node(&self) -> bool {
        self.active_routes.iter().any(|route| route.prefix_len() == 0)
    }

    /// Its user, unless it is tagged.
    pub fn user(&self) -> Option<UserId> {
        match &self.owner {
            NodeOwner::User(user) => Some(*user),
            NodeOwner::Tags(_) => None,
        }
    }

    /// Its tags; none if it belongs to a user.
    pub fn tags(&self) -> &[Arc<str>] {
        match &self.owner {
            NodeOwner::User(_) => &[],
            NodeOwner::Tags(tags) => tags,
        }
    }
}

/// The routes that a node offers and that are approved, sorted.
pub fn active_routes(offered: &[IpNet], approved: &[IpNet]) -> Vec<IpNet> {
    let mut active: Vec<IpNet> =
        offered.iter().map(IpNet::trunc).filter(|route| approved.contains(route)).collect();
    active.sort();
    active.dedup();
    active
}

impl From<&Owner> for NodeOwner {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::User(user) => Self::User(*user),
            Owner::Tags(tags) => Self::Tags(tags.iter().map(|tag| tag.as_str().into()).collect()),
        }
    }
}

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        let hostinfo = &node.hostinfo;
        Self {
            id: node.id,
            owner: (&node.owner).into(),
            ipv4: node.ipv4,
            ipv6: node.ipv6,
            active_routes: active_routes(&hostinfo.routable_ips, &node.approved_routes).into(),
            online: node.session.is_some(),
            device: Arc::new(Device {
                os: hostinfo.os.as_str().into(),
                os_version: hostinfo.os_version.as_str().into(),
                client_version: hostinfo.ipn_version.as_str().into(),
            }),
        }
    }
}
