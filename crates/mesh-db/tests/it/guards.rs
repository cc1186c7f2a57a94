//! The database is the guard: what memory must not believe, it refuses.

use mesh_db::Database;
use mesh_keys::NodePublic;
use mesh_model::{ApiKey, Node, NodeId, Owner, PreauthKey, PreauthKeyId, User, UserId};
use mesh_state::Write;
use mesh_store::{Persist as _, PersistError};

use crate::on_both_engines;
use crate::scratch::{
    Scratch, api_key, at, batch, commit, load, node, preauth_key, put_api_key, put_node,
    put_preauth_key, put_user, refusal, user,
};

on_both_engines!(
    what_is_unique_stays_unique,
    what_is_unique_stays_unique_within_a_batch,
    a_single_use_key_burns_once,
    a_single_use_key_burns_once_within_a_batch,
    a_key_that_is_not_there_does_not_burn,
    owners_must_exist,
    owners_with_possessions_stay,
    the_second_of_two_writers_loses,
    a_tailnet_that_is_not_there_takes_nothing,
    what_cannot_be_stored_is_refused,
    after_a_refusal_the_next_batch_is_taken,
);

async fn furnished(scratch: &Scratch) -> Database {
    let database = scratch.open().await;
    let writes = [
        put_user(user(1)),
        put_node(node(1)),
        put_preauth_key(preauth_key(1)),
        put_api_key(api_key(1)),
    ];
    commit(&database, writes).await.unwrap();
    database
}

/// Records that claim what record 1 has.
fn claims() -> Vec<(&'static str, Write)> {
    vec![
        ("node_key", put_node(Node { node_key: node(1).node_key, ..node(2) })),
        ("ipv4", put_node(Node { ipv4: node(1).ipv4, ..node(2) })),
        ("ipv6", put_node(Node { ipv6: node(1).ipv6, ..node(2) })),
        ("given_name", put_node(Node { given_name: node(1).given_name, ..node(2) })),
        ("name", put_user(User { name: user(1).name, ..user(2) })),
        (
            "public_id",
            put_preauth_key(PreauthKey { public_id: preauth_key(1).public_id, ..preauth_key(2) }),
        ),
        ("public_id", put_api_key(ApiKey { public_id: api_key(1).public_id, ..api_key(2) })),
    ]
}

async fn what_is_unique_stays_unique(scratch: &Scratch) {
    let database = furnished(scratch).await;
    for (column, claim) in claims() {
        let what = refusal(&database, [put_user(user(3)), claim]).await;
        assert!(what.contains(column), "{column}: {what}");
    }
}

async fn what_is_unique_stays_unique_within_a_batch(scratch: &Scratch) {
    let database = scratch.open().await;
    for (column, claim) in claims() {
        let writes = [
            put_user(user(1)),
            put_node(node(1)),
            put_preauth_key(preauth_key(1)),
            put_api_key(api_key(1)),
            claim,
        ];
        let what = refusal(&database, writes).await;
        assert!(what.contains(column), "{column}: {what}");
    }
}

fn burn(key: u64, node: u32) -> Write {
    Write::BurnPreauthKey { key: PreauthKeyId(key), node: NodeId(node), at: at(1) }
}

async fn a_single_use_key_burns_once(scratch: &Scratch) {
    let database = furnished(scratch).await;
    commit(&database, [burn(1, 1)]).await.unwrap();
    let what = refusal(&database, [put_node(node(2)), burn(1, 2)]).await;
    assert!(what.contains("used before"), "{what}");
}

async fn a_single_use_key_burns_once_within_a_batch(scratch: &Scratch) {
    let database = furnished(scratch).await;
    commit(&database, [put_preauth_key(preauth_key(2))]).await.unwrap();
    let what = refusal(&database, [burn(1, 1), burn(2, 1), burn(1, 2)]).await;
    assert!(what.contains("used before"), "{what}");
    commit(&database, [burn(1, 1), burn(2, 1)]).await.unwrap();
}

async fn a_key_that_is_not_there_does_not_burn(scratch: &Scratch) {
    let database = furnished(scratch).await;
    let what = refusal(&database, [burn(1, 1), burn(2, 1)]).await;
    assert!(what.contains("used before"), "{what}");
}

async fn owners_must_exist(scratch: &Scratch) {
    let database = furnished(scratch).await;
    let nobody = UserId(9);
    refusal(&database, [put_node(Node { owner: Owner::User(nobody), ..node(2) })]).await;
    let key = PreauthKey { user: Some(nobody), ..preauth_key(2) };
    refusal(&database, [put_preauth_key(key)]).await;
}

async fn owners_with_possessions_stay(scratch: &Scratch) {
    let database = furnished(scratch).await;
    refusal(&database, [Write::DeleteUser(UserId(1)), Write::DeleteNode(NodeId(1))]).await;
    let everything = [
        Write::DeleteUser(UserId(1)),
        Write::DeleteNode(NodeId(1)),
        Write::DeletePreauthKey(PreauthKeyId(1)),
    ];
    commit(&database, everything).await.unwrap();
}

async fn the_second_of_two_writers_loses(scratch: &Scratch) {
    let (one, other) = (scratch.open().await, scratch.open().await);
    load(&one).await;
    one.commit(&batch(1, [put_user(user(1))])).await.unwrap();
    for revision in [1, 3] {
        let error = other.commit(&batch(revision, [put_user(user(2))])).await.unwrap_err();
        assert!(matches!(error, PersistError::Overtaken), "{error}");
    }
    other.commit(&batch(2, [put_user(user(2))])).await.unwrap();
}

async fn a_tailnet_that_is_not_there_takes_nothing(scratch: &Scratch) {
    let database = scratch.open().await;
    let error = database.commit(&batch(1, [])).await.unwrap_err();
    assert!(matches!(error, PersistError::Overtaken), "{error}");
}

async fn what_cannot_be_stored_is_refused(scratch: &Scratch) {
    let database = furnished(scratch).await;
    let what = refusal(&database, [put_user(User { email: "a\0b".to_owned(), ..user(2) })]).await;
    assert!(what.contains("NUL"), "{what}");
    let what = refusal(&database, [put_user(user(u64::MAX))]).await;
    assert!(what.contains("too large"), "{what}");
}

async fn after_a_refusal_the_next_batch_is_taken(scratch: &Scratch) {
    let database = furnished(scratch).await;
    let taken = put_node(Node { node_key: node(1).node_key, ..node(2) });
    for _ in 0..3 {
        refusal(&database, [taken.clone()]).await;
        let moved_on = Node { node_key: NodePublic::from_bytes([9; 32]), ..node(2) };
        commit(&database, [put_node(moved_on)]).await.unwrap();
    }
}
