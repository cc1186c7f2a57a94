//! A policy against a tailnet: whatever parses compiles, and every node has an answer.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mesh_model::{NodeId, UserId};
use mesh_policy::{
    CompiledPolicy, Device, NodeFacts, NodeOwner, Policy, PolicyDelta, Role, UserFacts,
};

/// Compiles a policy for a few nodes of each kind and asks everything; visibility is symmetric, and a node that leaves and
/// comes back leaves no trace.
pub(crate) fn compile(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(policy) = Policy::parse(text, None) else { return };
    let nodes: Vec<NodeFacts> = (1..=8).map(node).collect();
    let mut compiled = CompiledPolicy::compile(Arc::new(policy), (1..=3).map(user), nodes.clone());
    drop(compiled.run_tests());
    let before: Vec<_> = nodes.iter().map(|node| compiled.view(node.id)).collect();
    for one in &nodes {
        for other in &nodes {
            assert_eq!(compiled.sees(one.id, other.id), compiled.sees(other.id, one.id));
        }
    }
    let mut delta = PolicyDelta::default();
    for node in &nodes {
        compiled.remove_node(node.id, &mut delta);
        compiled.put_node(node.clone(), &mut delta);
    }
    let after: Vec<_> = nodes.iter().map(|node| compiled.view(node.id)).collect();
    // Primaries move to the next router when theirs leaves, and stay there.
    for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
        assert_eq!(before.packet_filter, after.packet_filter);
        assert!(before.peers.keys().eq(after.peers.keys()));
    }
}

fn user(number: u8) -> UserFacts {
    let roles = [Role::Member, Role::Admin, Role::Owner];
    UserFacts {
        id: UserId(number.into()),
        name: format!("u{number}").into(),
        email: format!("u{number}@example.com").into(),
        provider_id: "".into(),
        role: roles[usize::from(number) % 3],
    }
}

/// Half of them tagged; some carry a subnet, the Internet, or the addresses of others.
fn node(number: u8) -> NodeFacts {
    let owner = if number.is_multiple_of(2) {
        NodeOwner::Tags(Arc::new([if number == 2 { "tag:web" } else { "tag:db" }.into()]))
    } else {
        NodeOwner::User(UserId(u64::from(number / 2 % 3) + 1))
    };
    let routes: &[&str] = match number {
        3 | 4 => &["10.0.0.0/8"],
        5 => &["0.0.0.0/0", "::/0"],
        6 => &["100.64.0.0/29", "10.1.0.0/16"],
        _ => &[],
    };
    NodeFacts {
        id: NodeId(number.into()),
        owner,
        ipv4: Some(Ipv4Addr::new(100, 64, 0, number)),
        ipv6: (number != 7)
            .then(|| Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, number.into())),
        active_routes: routes.iter().filter_map(|route| route.parse().ok()).collect(),
        online: number != 3,
        device: Arc::new(Device { os: "linux".into(), ..Device::default() }),
    }
}
