//! Random tailnets, policies and events, each from a seed: the same seed gives the same in every run.
//!
//! Everything is drawn from small pools, so that names, addresses, ports and routes of policy and tailnet meet often:
//! neighbouring addresses, nested and shared routes, routes that contain addresses of nodes, users that share groups.
//! Policies are texts that parse by construction.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use mesh_policy::{Device, NodeFacts, NodeOwner, Role, UserFacts};

pub use policy::Sections;

mod policy;

/// A source of numbers that only its seed decides: `SplitMix64`.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_7368)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("invariant: 64 bits");
        usize::try_from(self.next() % limit).expect("invariant: below a usize")
    }

    /// True this often in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of some.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Up to `most` of some, each at most once, in random order; at least one.
    pub fn some<T: Clone>(&mut self, items: &[T], most: usize) -> Vec<T> {
        let mut left = items.to_vec();
        let count = 1 + self.below(most.min(left.len()));
        (0..count).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }
}

/// Tags that nodes and policies use.
pub(super) const TAGS: &[&str] =
    &["tag:db", "tag:exit", "tag:lab", "tag:relay", "tag:router", "tag:web"];

const NAMES: &[&str] = &["alice", "bob", "carol", "dave", "erin"];

/// Subnet routes: nested, in both families, public, single, and with addresses of nodes inside.
pub(super) const ROUTES: &[&str] = &[
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.2.0.0/16",
    "192.168.7.0/24",
    "8.8.8.0/24",
    "100.64.0.0/29",
    "fd00:1::/64",
    "2001:db8::/32",
    "fd7a:115c:a1e0::/125",
];

/// A tailnet and its policy.
#[derive(Debug, Clone)]
pub struct World {
    /// The policy by sections.
    pub policy: Sections,
    /// Users, by id.
    pub users: Vec<UserFacts>,
    /// Nodes, by id.
    pub nodes: Vec<NodeFacts>,
    next_node: u32,
    next_user: u64,
}

/// What happens to a tailnet. Facts are those after the event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A node registers.
    Join(NodeFacts),
    /// A node is deleted.
    Leave(NodeId),
    /// A node belongs to other tags or another user.
    Retag(NodeFacts),
    /// A node has other active routes.
    Reroute(NodeFacts),
    /// A node has other addresses or runs on another system.
    Change(NodeFacts),
    /// A node comes or goes.
    Connect(NodeFacts),
    /// A user is created, renamed, or has another role or login.
    User(UserFacts),
    /// A user without nodes is deleted.
    DeleteUser(UserId),
    /// The policy is another one.
    Edit(String),
}

impl World {
    /// A tailnet of this seed.
    pub fn new(random: &mut Random) -> Self {
        let mut world = Self {
            policy: Sections::new(random),
            users: Vec::new(),
            nodes: Vec::new(),
            next_node: 1,
            next_user: 1,
        };
        for _ in 0..2 + random.below(3) {
            let user = world.new_user(random);
            world.users.extend(user);
        }
        for _ in 0..3 + random.below(9) {
            let node = world.new_node(random);
            world.nodes.push(node);
        }
        world
    }

    /// The policy's text.
    pub fn policy_text(&self) -> String {
        self.policy.to_string()
    }

    /// The same with one thing less each: a rule, a node, a node's routes.
    pub fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for policy in self.policy.smaller() {
            all.push(Self { policy, ..self.clone() });
        }
        for index in 0..self.nodes.len() {
            let mut fewer = self.clone();
            fewer.nodes.remove(index);
            all.push(fewer);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            for skipped in 0..node.active_routes.len() {
                let mut fewer = self.clone();
                let mut routes = node.active_routes.to_vec();
                routes.remove(skipped);
                fewer.nodes[index].active_routes = routes.into();
                all.push(fewer);
            }
        }
        all
    }

    /// Lets something happen, and tells what.
    pub fn happen(&mut self, random: &mut Random) -> Event {
        loop {
            if let Some(event) = self.try_event(random) {
                self.apply(&event);
                return event;
            }
        }
    }

    fn try_event(&mut self, random: &mut Random) -> Option<Event> {
        match random.below(20) {
            0..3 if self.nodes.len() < 14 => Some(Event::Join(self.new_node(random))),
            3..5 if !self.nodes.is_empty() => Some(Event::Leave(random.pick(&self.nodes).id)),
            5..8 => {
                let owner = self.owner(random);
                Some(Event::Retag(NodeFacts { owner, ..self.some_node(random)? }))
            }
            8..11 => {
                let active_routes = routes(random, 60);
                Some(Event::Reroute(NodeFacts { active_routes, ..self.some_node(random)? }))
            }
            11 => {
                let node = self.some_node(random)?;
                let (ipv4, ipv6) = self.new_addresses(random);
                Some(Event::Change(NodeFacts { ipv4, ipv6, device: device(random), ..node }))
            }
            12..15 => {
                let node = self.some_node(random)?;
                Some(Event::Connect(NodeFacts { online: !node.online, ..node }))
            }
            15 => Some(Event::User(self.new_user(random)?)),
            16 if !self.users.is_empty() => {
                let user = random.pick(&self.users);
                Some(Event::User(user_facts(random, user.id, base_name(&user))))
            }
            17 => Some(Event::DeleteUser(self.idle_user(random)?)),
            18.. => {
                self.policy.edit(random);
                Some(Event::Edit(self.policy_text()))
            }
            _ => None,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Join(node) => self.nodes.push(node.clone()),
            Event::Leave(id) => self.nodes.retain(|node| node.id != *id),
            Event::Retag(node)
            | Event::Reroute(node)
            | Event::Change(node)
            | Event::Connect(node) => {
                for held in self.nodes.iter_mut().filter(|held| held.id == node.id) {
                    held.clone_from(node);
                }
            }
            Event::User(user) => {
                self.users.retain(|held| held.id != user.id);
                self.users.push(user.clone());
                self.users.sort_by_key(|user| user.id.0);
            }
            Event::DeleteUser(id) => self.users.retain(|user| user.id != *id),
            Event::Edit(_) => {}
        }
    }

    fn some_node(&self, random: &mut Random) -> Option<NodeFacts> {
        (!self.nodes.is_empty()).then(|| random.pick(&self.nodes))
    }

    fn idle_user(&self, random: &mut Random) -> Option<UserId> {
        let is_idle =
            |user: &&UserFacts| self.nodes.iter().all(|node| node.user() != Some(user.id));
        let idle: Vec<UserId> = self.users.iter().filter(is_idle).map(|user| user.id).collect();
        (!idle.is_empty()).then(|| random.pick(&idle))
    }

    fn new_user(&mut self, random: &mut Random) -> Option<UserFacts> {
        let taken: BTreeSet<&str> = self.users.iter().map(base_name).collect();
        let free: Vec<&str> = NAMES.iter().copied().filter(|name| !taken.contains(name)).collect();
        if free.is_empty() {
            return None;
        }
        let id = UserId(self.next_user);
        self.next_user += 1;
        let name = random.pick(&free);
        Some(user_facts(random, id, name))
    }

    fn new_node(&mut self, random: &mut Random) -> NodeFacts {
        let owner = self.owner(random);
        let is_router = matches!(&owner, NodeOwner::Tags(tags)
            if tags.iter().any(|tag| matches!(&**tag, "tag:router" | "tag:exit")));
        let (ipv4, ipv6) = self.new_addresses(random);
        let id = NodeId(self.next_node);
        self.next_node += 1;
        NodeFacts {
            id,
            owner,
            ipv4,
            ipv6,
            active_routes: routes(random, if is_router { 85 } else { 20 }),
            online: random.chance(85),
            device: device(random),
        }
    }

    fn owner(&self, random: &mut Random) -> NodeOwner {
        if random.chance(55) && !self.users.is_empty() {
            return NodeOwner::User(random.pick(&self.users).id);
        }
        let most = if random.chance(70) { 1 } else { 3 };
        let mut tags = random.some(TAGS, most);
        tags.sort_unstable();
        NodeOwner::Tags(tags.into_iter().map(Arc::from).collect())
    }

    /// Addresses that no other node has: the lowest that are free, so that neighbours are common.
    fn new_addresses(&self, random: &mut Random) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let v4 = |number: u16| {
            Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + u32::from(number))
        };
        let v6 = |number: u16| Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, number);
        let is_free = |number: &u16| {
            self.nodes
                .iter()
                .all(|node| node.ipv4 != Some(v4(*number)) && node.ipv6 != Some(v6(*number)))
        };
        let number = (1 + u16::from(random.chance(30))..u16::MAX)
            .find(is_free)
            .expect("invariant: few nodes");
        match random.below(10) {
            0 => (None, Some(v6(number))),
            1 => (Some(v4(number)), None),
            _ => (Some(v4(number)), Some(v6(number))),
        }
    }
}

/// Users of different names are never confused: a name is the beginning of all that a user is called.
fn base_name(user: &UserFacts) -> &'static str {
    let is_base = |name: &&&str| user.name.starts_with(**name);
    NAMES.iter().find(is_base).copied().expect("invariant: users are named from the pool")
}

fn user_facts(random: &mut Random, id: UserId, base: &str) -> UserFacts {
    let name = if random.chance(80) { base.to_owned() } else { format!("{base}-two") };
    let email = match random.below(4) {
        0 => String::new(),
        1 => format!("{base}@example.org"),
        _ => format!("{base}@example.com"),
    };
    let provider = if random.chance(30) { format!("{base}-oidc") } else { String::new() };
    UserFacts {
        id,
        name: name.into(),
        email: email.into(),
        provider_id: provider.into(),
        role: random.pick(&[Role::Member, Role::Member, Role::Admin, Role::Owner]),
    }
}

/// Tokens for users, some of whom do not exist.
pub(super) fn user_tokens() -> Vec<String> {
    let of = |name: &&str| {
        let forms = ["@", "@example.com", "@example.org", "-oidc@"];
        forms.map(|form| format!("{name}{form}"))
    };
    NAMES.iter().flat_map(of).chain(["ghost@example.com".to_owned()]).collect()
}

fn routes(random: &mut Random, percent: usize) -> Arc<[IpNet]> {
    let mut routes: Vec<&str> = Vec::new();
    if random.chance(percent) {
        routes.extend(random.some(ROUTES, 3));
    }
    if random.chance(percent / 4) {
        routes.extend(random.pick(&[&["0.0.0.0/0", "::/0"][..], &["0.0.0.0/0"], &["::/0"]]));
    }
    let mut routes: Vec<IpNet> =
        routes.iter().map(|route| route.parse().expect("invariant: a prefix")).collect();
    routes.sort();
    routes.into()
}

fn device(random: &mut Random) -> Arc<Device> {
    Arc::new(Device {
        os: random.pick(&["linux", "macOS", "windows", ""]).into(),
        os_version: random.pick(&["14.2", "13.10", ""]).into(),
        client_version: random.pick(&["1.80.0", "1.78.3", "1.9.0"]).into(),
    })
}
