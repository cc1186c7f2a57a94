//! Commands that say something random, for simulations: small numbers in, so that what is said repeats and collides.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Hostinfo, Node, Service, Tag};
use mesh_policy::Policy;
use mesh_state::{Command, NewPolicy, NodeUpdate};

use crate::disco_key;
use crate::random::Sections;

/// A node tells of itself; each digit is a field, and most change nothing.
pub fn update(node: &Node, what: [u8; 6], offered: u8) -> Command {
    let [disco, endpoints, home, hostname, peer_api, version] = what;
    let service =
        Service { proto: "peerapi4".to_owned(), port: peer_api.into(), description: String::new() };
    let hostinfo = Hostinfo {
        hostname: format!("host {hostname}"),
        routable_ips: routes(offered),
        services: vec![service],
        ..node.hostinfo.clone()
    };
    // A node that is offline has no new disco key: Go clients would hold on to the old one.
    let rotates = disco == 0 && node.session.is_some();
    Command::UpdateNode(Box::new(NodeUpdate {
        node: node.id,
        node_key: node.node_key,
        disco_key: if rotates { disco_key(u64::from(node.id.0) + 100) } else { node.disco_key },
        hostinfo: (hostname != 2).then_some(hostinfo),
        endpoints: (0..endpoints).map(|number| ([192, 0, 2, number], 1).into()).collect(),
        home_derp: Some(home.into()).filter(|home| *home != 0),
        capability_version: 130 + u32::from(version == 0),
    }))
}

/// Routes by bits: nested ones, one with addresses of nodes inside, and the Internet.
pub fn routes(bits: u8) -> Vec<IpNet> {
    let all =
        ["10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "100.64.0.0/29", "8.8.8.0/24", "fd00:1::/64"];
    by_bits(all, bits)
}

/// One or two tags, by number.
pub fn tags(number: u8) -> Vec<Tag> {
    let all = ["tag:db", "tag:exit", "tag:lab", "tag:relay", "tag:router", "tag:web"];
    by_bits(all, 1 << (number % 6) | 1 << (number / 6 % 6))
}

fn by_bits<const N: usize, T: FromStr<Err: Debug>>(all: [&str; N], bits: u8) -> Vec<T> {
    let is_set = |(bit, _): &(usize, &str)| bits & 1 << bit != 0;
    let texts = all.into_iter().enumerate().filter(is_set).map(|(_, text)| text);
    texts.map(|text| text.parse().expect("a valid text")).collect()
}

/// Puts a random policy in force, whose own tests are not asked.
pub fn random_policy(sections: &Sections) -> Command {
    let text = sections.to_string();
    let mut policy = Policy::parse(&text, None).expect("random policies parse");
    policy.tests.clear();
    policy.ssh_tests.clear();
    set_policy(text, policy)
}

/// Puts a policy in force.
pub fn set_policy(text: String, policy: Policy) -> Command {
    let (policy, created_by) = (Arc::new(policy), "a test".to_owned());
    Command::SetPolicy(Box::new(NewPolicy { text, policy, created_by, replaces: None }))
}
