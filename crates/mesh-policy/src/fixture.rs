//! Tailnets of a few lines, for tests.

use std::sync::Arc;

use mesh_model::{NodeId, UserId};

use crate::compiled::CompiledPolicy;
use crate::facts::{Device, NodeFacts, NodeOwner, Role, UserFacts};
use crate::policy::Policy;

/// Users by login, the first the owner and the second an admin.
const USERS: [&str; 4] =
    ["owner@example.com", "admin@example.com", "alice@example.com", "bob@example.org"];

/// Compiles a policy against a tailnet: one node a line, numbered from 1, as
/// `alice@example.com` or `tag:web tag:db`, then `route 10.0.0.0/8`, `offline`, `os macOS` as needed.
/// Node 7 has the addresses 100.64.0.7 and `fd7a:115c:a1e0::7`.
pub(crate) fn compiled(policy: &str, nodes: &str) -> CompiledPolicy {
    CompiledPolicy::compile(parsed(policy), users(), nodes_of(nodes))
}

/// A policy that is sound.
pub(crate) fn parsed(policy: &str) -> Arc<Policy> {
    Arc::new(Policy::parse(policy, None).unwrap_or_else(|problems| panic!("{problems}")))
}

/// The user with a login.
pub(crate) fn user(login: &str) -> UserId {
    let index = USERS.iter().position(|user| *user == login);
    UserId(1 + u64::try_from(index.expect("a known login")).expect("few users"))
}

fn users() -> impl Iterator<Item = UserFacts> {
    USERS.into_iter().map(|login| UserFacts {
        id: user(login),
        name: login.split_once('@').expect("a login").0.into(),
        email: login.into(),
        provider_id: "".into(),
        role: match login {
            "owner@example.com" => Role::Owner,
            "admin@example.com" => Role::Admin,
            _ => Role::Member,
        },
    })
}

fn nodes_of(text: &str) -> Vec<NodeFacts> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.zip(1..).map(|(line, number)| node(number, line)).collect()
}

/// One node, as a line says it.
pub(crate) fn node(number: u16, line: &str) -> NodeFacts {
    let (mut tags, mut routes, mut owner) = (Vec::new(), Vec::new(), None);
    let (mut online, mut device) = (true, Device::default());
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "route" => routes.push(value().parse().expect("a route")),
            "offline" => online = false,
            "os" => device.os = value().into(),
            tag if tag.starts_with("tag:") => tags.push(Arc::from(tag)),
            login => owner = Some(NodeOwner::User(user(login))),
        }
    }
    tags.sort();
    routes.sort();
    NodeFacts {
        id: NodeId(number.into()),
        owner: owner.unwrap_or_else(|| NodeOwner::Tags(tags.into())),
        ipv4: Some([100, 64, number.to_be_bytes()[0], number.to_be_bytes()[1]].into()),
        ipv6: Some([0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, number].into()),
        active_routes: routes.into(),
        online,
        device: Arc::new(device),
    }
}
