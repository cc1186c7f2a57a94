//! Large tailnets with many rules, to measure by: the same for the same [`Size`] in every run.
//!
//! 500 tags, 200 groups of 5 users, 300 users. Each rule has one source (a third each: group, tag, user) and two
//! destinations `tag:port`. Nodes are tagged, with one tag each, or belong to a user.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use mesh_model::{NodeId, UserId};
use mesh_policy::{Device, NodeFacts, NodeOwner, Role, UserFacts};

use crate::random::Random;

const TAGS: usize = 500;
const GROUPS: usize = 200;
const GROUP_MEMBERS: usize = 5;
const USERS: usize = 300;

/// How large, and of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Rules.
    pub rules: usize,
    /// Whether everybody reaches their own devices: `autogroup:self`.
    pub with_self: bool,
    /// How many nodes in a hundred are subnet routers, each of a subnet of its own.
    pub routers_percent: usize,
    /// Whether each node belongs to a user of its own, instead of tags and shared users.
    pub user_per_node: bool,
}

impl Size {
    /// Plain: no self rule, no routers, shared users.
    pub fn new(nodes: usize, rules: usize) -> Self {
        Self { nodes, rules, with_self: false, routers_percent: 0, user_per_node: false }
    }
}

/// A large tailnet and its policy.
#[derive(Debug, Clone)]
pub struct Large {
    /// The policy's text.
    pub policy: String,
    /// Users, by id.
    pub users: Vec<UserFacts>,
    /// Nodes, by id.
    pub nodes: Vec<NodeFacts>,
}

impl Large {
    /// The tailnet of a size.
    pub fn new(size: Size) -> Self {
        let mut random = Random::new(1);
        let policy = policy(size, &mut random);
        let users = if size.user_per_node { size.nodes.max(USERS) } else { USERS };
        let nodes = (0..size.nodes).map(|index| node(size, index, &mut random)).collect();
        Self { policy, users: (0..users).map(user).collect(), nodes }
    }
}

fn policy(size: Size, random: &mut Random) -> String {
    let mut text = String::from("{\n  \"groups\": {\n");
    for group in 0..GROUPS {
        let members: Vec<String> =
            (0..GROUP_MEMBERS).map(|_| format!("\"{}\"", login(random.below(USERS)))).collect();
        let _ = writeln!(text, "    \"group:g{group}\": [{}],", members.join(", "));
    }
    text.push_str("  },\n  \"tagOwners\": {\n");
    for tag in 0..TAGS {
        let _ = writeln!(text, "    \"tag:t{tag}\": [\"group:g{}\"],", tag % GROUPS);
    }
    text.push_str("  },\n  \"acls\": [\n");
    if size.with_self {
        let own =
            r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}"#;
        let _ = writeln!(text, "    {own},");
    }
    for index in 0..size.rules {
        let src = match index % 3 {
            0 => format!("group:g{}", random.below(GROUPS)),
            1 => format!("tag:t{}", random.below(TAGS)),
            _ => login(random.below(USERS)),
        };
        let mut dst = || format!("\"tag:t{}:{}\"", random.below(TAGS), 1 + random.below(9999));
        let (one, other) = (dst(), dst());
        let _ = writeln!(
            text,
            "    {{\"action\": \"accept\", \"src\": [\"{src}\"], \"dst\": [{one}, {other}]}},"
        );
    }
    text.push_str("  ],\n}\n");
    text
}

fn login(user: usize) -> String {
    format!("user{user}@example.com")
}

fn user(index: usize) -> UserFacts {
    UserFacts {
        id: UserId(index as u64 + 1),
        name: format!("user{index}").into(),
        email: login(index).into(),
        provider_id: "".into(),
        role: Role::Member,
    }
}

fn node(size: Size, index: usize, random: &mut Random) -> NodeFacts {
    let number = u32::try_from(index + 1).expect("invariant: fewer nodes than ids");
    let owner = if size.user_per_node {
        NodeOwner::User(UserId(u64::from(number)))
    } else if random.chance(40) {
        NodeOwner::User(UserId(random.below(USERS) as u64 + 1))
    } else {
        NodeOwner::Tags(Arc::new([format!("tag:t{}", random.below(TAGS)).into()]))
    };
    let routes =
        if random.chance(size.routers_percent) { vec![subnet(number)] } else { Vec::new() };
    NodeFacts {
        id: NodeId(number),
        owner,
        ipv4: Some(Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + number)),
        ipv6: Some(Ipv6Addr::from_bits((0xfd7a_115c_a1e0_u128 << 80) + u128::from(number))),
        active_routes: routes.into(),
        online: true,
        device: Arc::new(Device { os: "linux".into(), ..Device::default() }),
    }
}

/// A `/28` below 10.0.0.0/8 that no other number up to a million has.
fn subnet(number: u32) -> IpNet {
    let address =
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + (number << 4 & 0x00ff_ffff));
    Ipv4Net::new(address, 28).expect("invariant: 28 is a length").into()
}
