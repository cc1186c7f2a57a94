//! A tailnet from a file, for what is evaluated without a server.
//!
//! The file is JSON: `domains`, `users` and `nodes`. All nodes are Linux machines that are connected.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use mesh_policy::{
    CompiledPolicy, Device, NodeFacts, NodeOwner, Policy, Role, UserFacts, active_routes,
};
use serde::Deserialize;
use serde_json::Value;

/// Who is there, and what the service that it was taken from had told them.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Login domains of the tailnet, if they are told.
    pub(crate) domains: Option<Vec<String>>,
    pub(crate) users: Vec<UserFacts>,
    /// In the order of registration: ids count from 1.
    pub(crate) nodes: Vec<TopologyNode>,
    /// Whether names of nodes resolve.
    pub(crate) has_magic_dns: bool,
    /// Whether every node was told what to do about updates.
    pub(crate) has_auto_update: bool,
}

/// A node with the routes that it offers.
#[derive(Debug)]
pub(crate) struct TopologyNode {
    pub(crate) name: String,
    /// Routes are active if they are approved whatever the policy.
    pub(crate) facts: NodeFacts,
    pub(crate) offered: Vec<IpNet>,
    /// Whether `autoApprovers` decide which routes are active.
    pub(crate) is_auto_approved: bool,
}

impl TopologyNode {
    /// With the routes that a policy approves, unless they are told.
    fn approved_by(&self, policy: &CompiledPolicy) -> NodeFacts {
        if !self.is_auto_approved {
            return self.facts.clone();
        }
        let approved = policy.auto_approved(&self.facts, &self.offered);
        let active_routes = active_routes(&self.offered, &approved).into();
        NodeFacts { active_routes, ..self.facts.clone() }
    }
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    domains: Option<Vec<String>>,
    #[serde(default)]
    users: Option<Vec<FileUser>>,
    nodes: Vec<FileNode>,
    #[serde(default)]
    tailnet: Option<FileTailnet>,
    #[serde(default)]
    default_auto_update_cap: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct FileUser {
    id: UserId,
    name: Arc<str>,
    #[serde(default)]
    login: Option<Arc<str>>,
    #[serde(default)]
    role: Option<FileRole>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileRole {
    Owner,
    Admin,
    /// Members, and roles that administer parts that policy does not know.
    #[serde(other)]
    Member,
}

#[derive(Debug, Deserialize)]
struct FileNode {
    name: String,
    #[serde(default)]
    ipv4: Option<Ipv4Addr>,
    #[serde(default)]
    ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    tags: Option<Vec<Arc<str>>>,
    #[serde(default)]
    advertised_routes: Option<Vec<IpNet>>,
    #[serde(default)]
    approved_routes: Option<Vec<IpNet>>,
    /// Rank of registration.
    #[serde(default)]
    order: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct FileTailnet {
    #[serde(default)]
    dns: Option<FileDns>,
}

#[derive(Debug, Deserialize)]
struct FileDns {
    #[serde(default)]
    magic_dns: Option<bool>,
}

impl Topology {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file)
            .with_context(|| format!("cannot read the topology {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("the topology {} is no good", file.display()))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// Also where two nodes have one name, or a node belongs to nobody.
    pub(crate) fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let mut file: File = serde_json::from_slice(json)?;
        file.nodes.sort_by_key(|node| (node.order.is_none(), node.order));
        let users: Vec<UserFacts> = file.users.into_iter().flatten().map(UserFacts::from).collect();
        let users_by_name = users
            .iter()
            .flat_map(|user| [(user.login(), user.id), (&*user.name, user.id)])
            .collect();
        let mut nodes: Vec<TopologyNode> = Vec::with_capacity(file.nodes.len());
        for (node, id) in file.nodes.into_iter().zip(1..) {
            nodes.push(node.with_id(NodeId(id), &users_by_name)?);
        }
        let mut names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            anyhow::bail!("two nodes are named {name}");
        }
        let dns = file.tailnet.and_then(|tailnet| tailnet.dns);
        Ok(Self {
            domains: file.domains,
            users,
            nodes,
            has_magic_dns: dns.and_then(|dns| dns.magic_dns) == Some(true),
            has_auto_update: file.default_auto_update_cap.is_some_and(|values| !values.is_null()),
        })
    }

    /// The policy in this tailnet. Routes of nodes whose approved ones are not told are approved as `autoApprovers` say.
    pub(crate) fn compile(&self, policy: Arc<Policy>) -> CompiledPolicy {
        let users = || self.users.iter().cloned();
        let told = self.nodes.iter().map(|node| node.facts.clone());
        let compiled = CompiledPolicy::compile(policy.clone(), users(), told);
        if !self.nodes.iter().any(|node| node.is_auto_approved && !node.offered.is_empty()) {
            return compiled;
        }
        // From the start once more: a router that was there first would stay the primary one.
        let nodes = self.nodes.iter().map(|node| node.approved_by(&compiled));
        CompiledPolicy::compile(policy, users(), nodes)
    }

    /// The node of an id that this topology gave.
    pub(crate) fn node(&self, id: NodeId) -> &TopologyNode {
        &self.nodes[id.0 as usize - 1]
    }

    /// What a node's user may do; tagged nodes have none.
    pub(crate) fn role(&self, node: &TopologyNode) -> Option<Role> {
        let user = node.facts.user()?;
        self.users.iter().find(|facts| facts.id == user).map(|facts| facts.role)
    }
}

impl From<FileUser> for UserFacts {
    fn from(user: FileUser) -> Self {
        let role = match user.role {
            Some(FileRole::Owner) => Role::Owner,
            Some(FileRole::Admin) => Role::Admin,
            Some(FileRole::Member) | None => Role::Member,
        };
        let provider_id = Arc::default();
        Self {
            id: user.id,
            name: user.name,
            email: user.login.unwrap_or_default(),
            provider_id,
            role,
        }
    }
}

impl FileNode {
    fn with_id(self, id: NodeId, users: &HashMap<&str, UserId>) -> anyhow::Result<TopologyNode> {
        let name = self.name;
        let mut tags = self.tags.unwrap_or_default();
        tags.sort();
        tags.dedup();
        let owner =
            match self.user {
                _ if !tags.is_empty() => NodeOwner::Tags(tags.into()),
                Some(user) => NodeOwner::User(*users.get(user.as_str()).with_context(|| {
                    format!("the node {name} belongs to {user}, who is no user")
                })?),
                None => anyhow::bail!("the node {name} has neither a user nor tags"),
            };
        let offered = self.advertised_routes.unwrap_or_default();
        let is_auto_approved = self.approved_routes.is_none();
        let approved: Vec<IpNet> =
            self.approved_routes.iter().flatten().map(IpNet::trunc).collect();
        let facts = NodeFacts {
            id,
            owner,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            active_routes: active_routes(&offered, &approved).into(),
            online: true,
            device: Arc::new(Device { os: "linux".into(), ..Device::default() }),
        };
        Ok(TopologyNode { name, facts, offered, is_auto_approved })
    }
}

#[cfg(test)]
mod tests;
