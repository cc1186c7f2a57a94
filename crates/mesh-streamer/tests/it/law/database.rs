//! A database in memory that may be slow, or gone for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_model::TailnetId;
use mesh_state::{Batch, Loaded};
use mesh_store::{Persist, PersistError};
use mesh_testkit::MemoryDatabase;
use tokio::time::sleep;

/// A [`MemoryDatabase`] whose commits take time.
#[derive(Debug, Default)]
pub(super) struct Database {
    rows: MemoryDatabase,
    commit_ms: AtomicU64,
}

impl Database {
    /// Makes every commit take so long; or fail, if it `is_down`.
    pub(super) fn set(&self, commit_ms: u64, is_down: bool) {
        self.commit_ms.store(commit_ms, Ordering::SeqCst);
        self.rows.set_down(is_down);
    }
}

impl Persist for Database {
    async fn load(&self, tailnet: TailnetId) -> Result<Loaded, PersistError> {
        self.rows.load(tailnet).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), PersistError> {
        let commit_ms = self.commit_ms.load(Ordering::SeqCst);
        if commit_ms > 0 {
            sleep(Duration::from_millis(commit_ms)).await;
        }
        self.rows.commit(batch).await
    }

    async fn ping(&self) -> Result<(), PersistError> {
        self.rows.ping().await
    }
}
