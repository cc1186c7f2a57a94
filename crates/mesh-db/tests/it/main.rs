//! The database as the node store sees it: the same tests on both engines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod change_log;
mod full;
mod guards;
mod open;
mod order;
mod replay;
mod round_trip;
mod rows;
mod schema;
mod scratch;
mod sqlite;
mod unanswered;

/// Runs each test on either engine, on a database of its own.
macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                let scratch = crate::scratch::Scratch::sqlite();
                super::$test(&scratch).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                let scratch = crate::scratch::Scratch::postgres().await;
                super::$test(&scratch).await;
                scratch.remove().await;
            })+
        }
    };
}
use on_both_engines;
