use std::sync::Arc;

use mesh_keys::{MachinePublic, NodePublic};
use mesh_model::{NodeId, PreauthKeyId, TailnetId, Timestamp, UserId};
use mesh_state::Counters;

use super::*;

fn check(writes: Vec<Write>, expected: &[(&str, Verb, usize)]) {
    let batch = Batch {
        tailnet: TailnetId(1),
        revision: 1,
        counters: Counters::default(),
        writes,
        change: String::new(),
        at: Timestamp::UNIX_EPOCH,
    };
    let runs = plan(&batch).unwrap();
    let found: Vec<_> = runs.iter().map(|run| (run.table.name, run.verb, run.rows.len())).collect();
    assert_eq!(found, expected);
}

fn user(id: u64) -> Write {
    Write::PutUser(Arc::new(User {
        id: UserId(id),
        name: String::new(),
        display_name: String::new(),
        email: String::new(),
        profile_pic_url: String::new(),
        provider: String::new(),
        provider_id: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
    }))
}

fn burn(key: u64) -> Write {
    Write::BurnPreauthKey { key: PreauthKeyId(key), node: NodeId(1), at: Timestamp::UNIX_EPOCH }
}

#[test]
fn nothing_is_no_statement() {
    check(Vec::new(), &[]);
}

#[test]
fn writes_to_different_tables_do_not_part_each_other() {
    let writes = vec![user(1), burn(1), user(2), burn(2), user(3), burn(3)];
    check(writes, &[("preauth_key", Verb::Burn, 3), ("users", Verb::Put, 3)]);
}

#[test]
fn writes_to_one_table_keep_their_order() {
    let writes = vec![user(1), Write::DeleteUser(UserId(1)), user(2), user(3)];
    let expected = [("users", Verb::Put, 1), ("users", Verb::Delete, 1), ("users", Verb::Put, 2)];
    check(writes, &expected);
}

#[test]
fn a_row_is_not_twice_in_a_statement() {
    let writes = vec![user(1), user(2), user(1), user(2), user(3)];
    check(writes, &[("users", Verb::Put, 2), ("users", Verb::Put, 3)]);
}

#[test]
fn a_key_may_be_of_several_columns() {
    let machine = MachinePublic::from_bytes([1; 32]);
    let delete = |number| Write::DeleteTombstone(machine, NodePublic::from_bytes([number; 32]));
    check(vec![delete(1), delete(2)], &[("tombstone", Verb::Delete, 2)]);
    check(vec![delete(1), delete(1)], &[("tombstone", Verb::Delete, 1); 2]);
}

#[test]
fn the_key_leads_the_columns() {
    for table in [User::TABLE, Node::TABLE, PreauthKey::TABLE, ApiKey::TABLE, Tombstone::TABLE] {
        assert_eq!(table.columns[..table.key.len()], *table.key, "{}", table.name);
    }
}
