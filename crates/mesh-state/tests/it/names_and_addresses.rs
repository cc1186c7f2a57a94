//! Names and addresses, each given once.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use mesh_testkit::registration;

use crate::House;
use mesh_state::{Allocation, Command, NodeUpdate, Refusal, Registration, Settings};

fn named(house: &mut House, machine: u64, hostname: &str) -> std::sync::Arc<mesh_model::Node> {
    let mut request = registration(machine, machine);
    hostname.clone_into(&mut request.hostinfo.hostname);
    request.preauth_key = Some(house.key(|_| {}));
    house.must_register(request)
}

#[test]
fn names_that_collide_are_numbered() {
    let mut house = House::new();
    let names: Vec<_> =
        (1..=3).map(|machine| named(&mut house, machine, "Web!").given_name.clone()).collect();
    assert_eq!(names, ["web", "web-1", "web-2"]);
}

#[test]
fn name_follows_the_hostname_until_an_admin_chooses_one() {
    let mut house = House::new();
    let node = named(&mut house, 1, "old");
    let update = |hostname: &str| {
        Command::UpdateNode(Box::new(NodeUpdate {
            node: node.id,
            node_key: node.node_key,
            disco_key: node.disco_key,
            hostinfo: Some(mesh_model::Hostinfo {
                hostname: hostname.to_owned(),
                ..Default::default()
            }),
            endpoints: Vec::new(),
            home_derp: None,
            capability_version: 130,
        }))
    };
    house.must(update("new"));
    assert_eq!(house.get(node.id).given_name, "new");
    house.must(Command::RenameNode { node: node.id, name: "chosen".to_owned() });
    house.must(update("newer"));
    assert_eq!(house.get(node.id).given_name, "chosen");
}

#[test]
fn chosen_names_are_checked_and_unique() {
    let mut house = House::new();
    let (first, second) = (named(&mut house, 1, "a"), named(&mut house, 2, "b"));
    let rename = |name: &str| Command::RenameNode { node: second.id, name: name.to_owned() };
    assert_eq!(house.apply(rename("a")), Err(Refusal::NameTaken("a".to_owned())));
    assert!(matches!(house.apply(rename("B!")), Err(Refusal::InvalidName(_))));
    house.must(Command::DeleteNode { node: first.id });
    house.must(rename("a"));
}

#[test]
fn addresses_are_given_in_order_and_reserved_ones_never() {
    let prefix = "100.115.91.248/21".parse().ok();
    let mut house = House::with(Settings { prefix_v4: prefix, ..Settings::default() });
    let mut seen = BTreeSet::new();
    for machine in 1..=1200 {
        let node = named(&mut house, machine, "x");
        let (v4, v6) = (node.ipv4.expect("v4"), node.ipv6.expect("v6"));
        assert!(seen.insert(IpAddr::V4(v4)) && seen.insert(IpAddr::V6(v6)));
        assert!(!(Ipv4Addr::new(100, 115, 92, 0)..=Ipv4Addr::new(100, 115, 93, 255)).contains(&v4));
    }
    assert!(!seen.contains(&"fd7a:115c:a1e0::53".parse::<IpAddr>().expect("an address")));
}

#[test]
fn full_prefix_is_refused_and_a_freed_address_is_given_again() {
    for allocation in [Allocation::Sequential, Allocation::Random] {
        let prefix_v4 = "100.64.0.0/29".parse().ok();
        let mut house = House::with(Settings { prefix_v4, allocation, ..Settings::default() });
        let nodes: Vec<_> = (1..=6).map(|machine| named(&mut house, machine, "x")).collect();
        let preauth_key = Some(house.key(|_| {}));
        let seventh = Registration { preauth_key, ..registration(7, 7) };
        assert!(matches!(house.register(seventh.clone()), Err(Refusal::AddressesExhausted(_))));
        house.must(Command::DeleteNode { node: nodes[2].id });
        assert_eq!(house.must_register(seventh).ipv4, nodes[2].ipv4);
    }
}

#[test]
fn tailnet_may_have_one_family_only() {
    let mut house = House::with(Settings { prefix_v4: None, ..Settings::default() });
    let node = named(&mut house, 1, "x");
    assert_eq!((node.ipv4, node.addresses().count()), (None, 1));
}

#[test]
fn ids_are_never_given_twice_even_after_a_restart() {
    let mut house = House::new();
    let node = named(&mut house, 1, "x");
    house.must(Command::DeleteNode { node: node.id });
    let loaded = house.rows.load();
    house.state = mesh_state::State::new(
        mesh_model::TailnetId(1),
        loaded,
        std::sync::Arc::default(),
        Settings::default(),
        house.now,
    );
    assert!(named(&mut house, 2, "y").id > node.id);
}
