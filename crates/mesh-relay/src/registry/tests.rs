use tokio_util::sync::CancellationToken;

use super::*;

fn client(number: u8) -> Arc<Client> {
    Arc::new(Client::new(NodePublic::from_bytes([number; 32]), &CancellationToken::new()))
}

fn joined(registry: &Registry, number: u8) -> Arc<Client> {
    let client = client(number);
    assert!(registry.join(&client, || true));
    client
}

fn check_active(registry: &Registry, key: &NodePublic, expected: Option<&Arc<Client>>) {
    let found = registry.find(key);
    assert_eq!(found.as_ref().map(Arc::as_ptr), expected.map(Arc::as_ptr));
    assert!(expected.is_none_or(|client| client.is_active()));
}

/// Whether anything waits for a client, which is then forgotten.
fn has_mail(client: &Client) -> bool {
    let mut bytes = Vec::new();
    client.drain(&mut bytes);
    !bytes.is_empty()
}

#[test]
fn newest_connection_wins_and_then_whoever_spoke_last() {
    let registry = Registry::default();
    let first = joined(&registry, 1);
    let second = joined(&registry, 1);
    let third = joined(&registry, 1);
    check_active(&registry, &first.key, Some(&third));
    assert!(!first.is_active() && !second.is_active());

    registry.activate(&first);
    check_active(&registry, &first.key, Some(&first));
    assert!(!third.is_active());

    registry.leave(&first, std::iter::empty());
    check_active(&registry, &first.key, Some(&third));
    assert!(!first.is_active());
    registry.leave(&second, std::iter::empty());
    check_active(&registry, &first.key, Some(&third));
    registry.leave(&third, std::iter::empty());
    check_active(&registry, &first.key, None);
    registry.activate(&third);
    check_active(&registry, &first.key, None);
}

#[test]
fn only_the_last_connection_of_a_key_leaves_a_gap() {
    let registry = Registry::default();
    let [alice, bob, carol] = [2, 3, 4].map(|number| joined(&registry, number));
    let first = joined(&registry, 1);
    let second = joined(&registry, 1);
    registry.leave(&first, [alice.key].into_iter());
    assert!(!has_mail(&alice));
    registry.leave(&second, [bob.key].into_iter());
    assert!(has_mail(&alice) && has_mail(&bob) && !has_mail(&carol));
}

#[test]
fn who_is_not_admitted_is_not_found() {
    let registry = Registry::default();
    let client = client(1);
    assert!(!registry.join(&client, || false));
    check_active(&registry, &client.key, None);
}

#[test]
fn cutting_a_key_ends_all_its_connections_and_no_other() {
    let registry = Registry::default();
    let [first, second, other] = [1, 1, 2].map(|number| joined(&registry, number));
    assert_eq!(registry.cut(&first.key), 2);
    assert!(first.cut.is_cancelled() && second.cut.is_cancelled() && !other.cut.is_cancelled());
    assert_eq!(registry.cut(&NodePublic::default()), 0);
}
