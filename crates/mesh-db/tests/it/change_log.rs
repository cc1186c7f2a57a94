//! The log of changes, by which replicas follow.

use mesh_store::Persist as _;

use crate::on_both_engines;
use crate::scratch::{Scratch, batch, commit, load, put_user, user};

on_both_engines!(changes_are_a_chain, old_changes_are_forgotten);

async fn changes_are_a_chain(scratch: &Scratch) {
    let database = scratch.open().await;
    for id in 1..=5 {
        commit(&database, [put_user(user(id))]).await.unwrap();
    }
    let sql = "SELECT rev, nonce, prev_nonce, decided_at FROM change ORDER BY rev";
    let changes = scratch.numbers(sql).await;
    assert_eq!(changes.len(), 5);
    let mut nonce = 0;
    for (change, rev) in changes.iter().zip(1..) {
        assert_eq!([change[0], change[2], change[3]], [rev, nonce, rev]);
        nonce = change[1];
    }
    let tailnet = scratch.numbers("SELECT rev, nonce, created_at FROM tailnet").await;
    assert_eq!(tailnet[0][..2], [5, nonce]);
    assert!(tailnet[0][2] > 1_700_000_000_000, "made at {} ms", tailnet[0][2]);
}

async fn old_changes_are_forgotten(scratch: &Scratch) {
    let database = scratch.open().await;
    load(&database).await;
    scratch
        .execute(
            "INSERT INTO change (tailnet, rev, nonce, prev_nonce, decided_at, body)
             WITH RECURSIVE one (rev) AS
                 (SELECT 1 UNION ALL SELECT rev + 1 FROM one WHERE rev < 11998)
             SELECT 1, rev, rev, rev - 1, 0, '{}' FROM one;
             UPDATE tailnet SET rev = 11998, nonce = 11998",
        )
        .await;
    let sql = "SELECT count(*), min(rev), max(rev) FROM change";
    database.commit(&batch(11_999, [])).await.unwrap();
    assert_eq!(scratch.numbers(sql).await, [[11_999, 1, 11_999]]);
    database.commit(&batch(12_000, [])).await.unwrap();
    assert_eq!(scratch.numbers(sql).await, [[10_000, 2_001, 12_000]]);
}
