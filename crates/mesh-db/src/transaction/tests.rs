use mesh_model::{TailnetId, Timestamp};
use mesh_state::Counters;

use super::*;

fn batch() -> Batch {
    Batch {
        tailnet: TailnetId(1),
        revision: 1,
        counters: Counters::default(),
        writes: Vec::new(),
        change: String::new(),
        at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn the_nonce_in_the_log_decides() {
    let batch = batch();
    let transaction = Transaction::new(&batch).unwrap();
    let judge = |found| transaction.judge(found, Failure::TimedOut);
    assert!(judge(Some(transaction.nonce)).is_ok());
    assert!(matches!(judge(Some(transaction.nonce ^ 1)), Err(Failure::Overtaken)));
    assert!(matches!(judge(None), Err(Failure::TimedOut)));
}

#[test]
fn no_two_attempts_look_alike() {
    let batch = batch();
    let nonce = || Transaction::new(&batch).unwrap().nonce;
    assert_ne!(nonce(), nonce());
}
