use std::net::Ipv4Addr;

use super::*;

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

pub(super) fn peer(number: u8) -> PeerPresent {
    let addr = (Ipv4Addr::LOCALHOST, u16::from(number)).into();
    PeerPresent { key: key(number), addr, flags: PeerPresent::REGULAR }
}

fn joined(table: &Table, number: u8) -> Arc<Client> {
    table.join(peer(number), || true).expect("admitted")
}

fn check_active(table: &Table, key: &NodePublic, expected: Option<&Arc<Client>>) {
    let found = table.find(key);
    assert_eq!(found.is_some(), expected.is_some());
    assert!(found.zip(expected).is_none_or(|(route, client)| route.is_by(client)));
    assert!(expected.is_none_or(|client| client.is_active()));
}

/// Whether anything waits for a client, which is then forgotten.
fn has_mail(client: &Client) -> bool {
    let mut bytes = Vec::new();
    client.drain(&mut bytes, usize::MAX);
    !bytes.is_empty()
}

#[test]
fn newest_connection_wins_and_then_whoever_spoke_last() {
    let table = Table::default();
    let first = joined(&table, 1);
    let second = joined(&table, 1);
    let third = joined(&table, 1);
    check_active(&table, &first.key(), Some(&third));
    assert!(!first.is_active() && !second.is_active());

    table.activate(&first);
    check_active(&table, &first.key(), Some(&first));
    assert!(!third.is_active());

    table.leave(&first, std::iter::empty());
    check_active(&table, &first.key(), Some(&third));
    assert!(!first.is_active());
    table.leave(&second, std::iter::empty());
    check_active(&table, &first.key(), Some(&third));
    table.leave(&third, std::iter::empty());
    check_active(&table, &first.key(), None);
    table.activate(&third);
    check_active(&table, &first.key(), None);
}

#[test]
fn only_the_last_connection_of_a_key_leaves_a_gap() {
    let table = Table::default();
    let [alice, bob, carol] = [2, 3, 4].map(|number| joined(&table, number));
    let first = joined(&table, 1);
    let second = joined(&table, 1);
    table.leave(&first, [alice.key()].into_iter());
    assert!(!has_mail(&alice));
    table.leave(&second, [bob.key()].into_iter());
    assert!(has_mail(&alice) && has_mail(&bob) && !has_mail(&carol));
}

#[test]
fn who_is_not_admitted_is_not_found() {
    let table = Table::default();
    assert!(table.join(peer(1), || false).is_none());
    check_active(&table, &key(1), None);
}

#[test]
fn cutting_a_key_ends_all_its_connections_and_no_other() {
    let table = Table::default();
    let [first, second, other] = [1, 1, 2].map(|number| joined(&table, number));
    assert_eq!(table.cut(&first.key()), 2);
    assert!(first.is_cut() && second.is_cut() && !other.is_cut());
    assert_eq!(table.cut(&NodePublic::default()), 0);
}
