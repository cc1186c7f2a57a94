//! Coming in with a key, coming back, renewing, leaving.

use mesh_model::{Owner, UserId};
use mesh_testkit::{at, machine_key, new_user, node_key, registration};

use crate::House;
use mesh_state::{Command, Outcome, Refusal, Registration, Settings, Write};

fn with_key(house: &mut House, machine: u64, key: u64) -> Registration {
    let preauth_key = Some(house.key(|_| {}));
    Registration { preauth_key, ..registration(machine, key) }
}

#[test]
fn single_use_key_registers_one_node() {
    let mut house = House::new();
    let first = with_key(&mut house, 1, 1);
    let second = Registration { preauth_key: first.preauth_key, ..registration(2, 2) };
    house.must_register(first);
    assert_eq!(house.register(second), Err(Refusal::PreauthKeyUsed));
}

#[test]
fn the_same_request_again_is_answered_as_before() {
    let mut house = House::new();
    let request = with_key(&mut house, 1, 1);
    let node = house.must_register(request.clone());
    assert_eq!(house.must_register(request).id, node.id);
}

#[test]
fn expired_and_revoked_keys_are_refused() {
    let mut house = House::new();
    let key = house.key(|key| key.expires_at = Some(at(10)));
    house.now = at(10);
    let request = Registration { preauth_key: Some(key), ..registration(1, 1) };
    assert_eq!(house.register(request), Err(Refusal::PreauthKeyExpired(at(10))));
    let key = house.key(|_| {});
    house.must(Command::RevokePreauthKey { key });
    let request = Registration { preauth_key: Some(key), ..registration(1, 1) };
    assert_eq!(house.register(request), Err(Refusal::PreauthKeyRevoked));
}

#[test]
fn restart_needs_no_key_and_keeps_the_expiry() {
    let expiry = std::time::Duration::from_secs(100);
    let mut house = House::with(Settings { node_expiry: Some(expiry), ..Settings::default() });
    let node = house.connected(1);
    house.now = at(50);
    let again = house.must_register(registration(1, 1));
    assert_eq!((again.id, again.expires_at), (node.id, Some(at(100))));
}

#[test]
fn another_machine_cannot_take_a_node_key() {
    let mut house = House::new();
    house.connected(1);
    let key = house.key(|_| {});
    let thief = Registration { preauth_key: Some(key), ..registration(2, 1) };
    assert_eq!(house.register(thief), Err(Refusal::NodeKeyInUse));
    let logout = Registration { expiry: Some(at(-1)), ..registration(2, 1) };
    assert_eq!(house.register(logout), Err(Refusal::NodeKeyInUse));
}

#[test]
fn rotation_keeps_id_name_and_addresses() {
    let mut house = House::new();
    let old = house.connected(1);
    let key = house.key(|_| {});
    let rotation = Registration {
        preauth_key: Some(key),
        old_node_key: Some(old.node_key),
        ..registration(1, 11)
    };
    let new = house.must_register(rotation);
    assert_eq!(
        (new.id, &new.given_name, new.ipv4, new.ipv6),
        (old.id, &old.given_name, old.ipv4, old.ipv6)
    );
    assert_eq!((new.node_key, new.session), (node_key(11), old.session));
}

#[test]
fn rotation_with_a_spent_key_is_refused() {
    let mut house = House::new();
    let request = with_key(&mut house, 1, 1);
    let preauth_key = request.preauth_key;
    house.must_register(request);
    let rotation = Registration { preauth_key, ..registration(1, 11) };
    assert_eq!(house.register(rotation), Err(Refusal::PreauthKeyUsed));
}

#[test]
fn overlapping_requests_of_a_forced_login_use_a_single_use_key_once() {
    for late in [false, true] {
        let mut house = House::new();
        let node = house.connected(1);
        let preauth_key = Some(house.key(|_| {}));
        let with_old_key = Registration { preauth_key, ..registration(1, 1) };
        let with_new_key =
            Registration { preauth_key, old_node_key: Some(node.node_key), ..registration(1, 11) };
        let mut requests = [with_old_key, with_new_key];
        if late {
            requests.reverse();
        }
        for request in requests {
            assert_eq!(house.must_register(request).id, node.id);
        }
        assert_eq!(house.get(node.id).node_key, node_key(11));
    }
}

#[test]
fn expired_node_has_to_make_a_new_key_and_then_to_log_in() {
    let mut house = House::new();
    let node = house.connected(1);
    house.must(Command::SetNodeExpiry { node: node.id, expires_at: Some(at(0)) });
    assert_eq!(house.register(registration(1, 1)), Ok(Outcome::NodeKeyExpired));
    let fresh = Registration { old_node_key: Some(node_key(1)), ..registration(1, 11) };
    assert!(matches!(house.register(fresh.clone()), Ok(Outcome::NeedsLogin(_))));
    let preauth_key = Some(house.key(|_| {}));
    let back = house.must_register(Registration { preauth_key, ..fresh });
    assert_eq!((back.id, back.expires_at), (node.id, None));
}

#[test]
fn client_may_shorten_its_expiry_but_not_extend_it() {
    let mut house = House::new();
    house.connected(1);
    let shorter = Registration { expiry: Some(at(100)), ..registration(1, 1) };
    assert_eq!(house.must_register(shorter).expires_at, Some(at(100)));
    let longer = Registration { expiry: Some(at(200)), ..registration(1, 1) };
    assert_eq!(house.register(longer), Err(Refusal::ExtendingExpiry));
}

#[test]
fn logout_wins_over_a_key_in_the_same_request() {
    let mut house = House::new();
    let node = house.connected(1);
    let key = house.key(|_| {});
    let logout =
        Registration { preauth_key: Some(key), expiry: Some(at(-1)), ..registration(1, 1) };
    assert_eq!(house.register(logout), Ok(Outcome::LoggedOut));
    let gone = house.get(node.id);
    assert!(gone.is_expired(house.now) && gone.session.is_none());
}

#[test]
fn logout_removes_an_ephemeral_node() {
    let mut house = House::new();
    let key = house.key(|key| key.ephemeral = true);
    let node = house.must_register(Registration { preauth_key: Some(key), ..registration(1, 1) });
    house.connect(&node);
    let logout = Registration { expiry: Some(at(-1)), ..registration(1, 1) };
    assert_eq!(house.register(logout), Ok(Outcome::LoggedOut));
    assert!(!house.has(node.id));
    assert!(house.tailnet().tombstone(machine_key(1), node_key(1)).is_some());
}

#[test]
fn another_users_key_makes_another_node_of_the_same_machine() {
    let mut house = House::new();
    let first = house.connected(1);
    house.must(Command::CreateUser(new_user("bob")));
    let key = house.key(|key| key.user = Some(UserId(2)));
    let second =
        house.must_register(Registration { preauth_key: Some(key), ..registration(1, 11) });
    assert_ne!(first.id, second.id);
    assert_eq!(house.get(first.id).owner, Owner::User(UserId(1)));
}

#[test]
fn tagged_key_converts_the_machines_node() {
    let mut house = House::new();
    let node = house.connected(1);
    let tag: mesh_model::Tag = "tag:web".parse().expect("a tag");
    let key = house.key(|key| key.tags = vec![tag.clone()]);
    let tagged =
        house.must_register(Registration { preauth_key: Some(key), ..registration(1, 11) });
    assert_eq!((tagged.id, &tagged.owner), (node.id, &Owner::Tags(vec![tag])));
}

#[test]
fn requested_tags_need_somebody_who_permits_them() {
    let mut house = House::new();
    let mut request = with_key(&mut house, 1, 1);
    request.hostinfo.request_tags = vec!["tag:web".to_owned(), "nonsense".to_owned()];
    let refusal = house.register(request.clone()).expect_err("nobody permits them").to_string();
    assert!(refusal.contains("requested tags [tag:web, nonsense] are invalid"), "{refusal}");
    assert!(refusal.contains("tag:web is not defined in tagOwners; "), "{refusal}");
    let tag = "tag:web".parse().expect("a tag");
    request.preauth_key = Some(house.key(|key| key.tags = vec![tag]));
    assert_eq!(house.must_register(request).owner.tags().len(), 1);
}

#[test]
fn deleted_key_leaves_its_nodes() {
    let mut house = House::new();
    let node = house.connected(1);
    let key = node.preauth_key.expect("it came in with a key");
    house.must(Command::DeletePreauthKey { key });
    assert_eq!(house.get(node.id).preauth_key, None);
    house.must_register(registration(1, 1));
}

#[test]
fn home_region_is_remembered_over_deletion() {
    let mut house = House::new();
    let node = house.connected(1);
    house.must(Command::UpdateNode(Box::new(mesh_state::NodeUpdate {
        node: node.id,
        node_key: node.node_key,
        disco_key: node.disco_key,
        hostinfo: None,
        endpoints: Vec::new(),
        home_derp: Some(9),
        capability_version: 130,
    })));
    house.must(Command::DeleteNode { node: node.id });
    let request = with_key(&mut house, 1, 12);
    assert_eq!(house.must_register(request).home_derp, Some(9));
}

#[test]
fn burning_a_key_is_guarded_by_the_database() {
    let mut house = House::new();
    let request = with_key(&mut house, 1, 1);
    let mut draft = house.state.draft();
    draft
        .apply(&Command::Register(Box::new(request)), &mesh_testkit::context(house.now))
        .expect("a good key");
    let batch = draft.batch(house.now).expect("something to write");
    assert!(batch.writes.iter().any(|write| matches!(write, Write::BurnPreauthKey { .. })));
}
