use std::time::Duration;

use anyhow::{Result, ensure};

use super::eventually;

#[tokio::test]
async fn an_answer_is_returned_as_soon_as_it_is_there() -> Result<()> {
    let mut asked = 0;
    let answer = eventually(Duration::from_secs(5), "third time lucky", async || {
        asked += 1;
        ensure!(asked == 3, "asked {asked} times");
        Ok(asked)
    });
    assert_eq!(answer.await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_deadline_tells_what_was_waited_for_and_what_was_seen_last() {
    let mut asked = 0;
    let answer =
        eventually(Duration::from_millis(100), "the impossible", async || -> Result<()> {
            asked += 1;
            anyhow::bail!("answer {asked}")
        });
    let error = format!("{:#}", answer.await.expect_err("it is impossible"));
    assert!(error.starts_with("not within 100ms: the impossible: answer "), "{error}");
}

#[tokio::test]
async fn a_question_that_hangs_ends_at_the_deadline() {
    let answer = eventually(Duration::from_millis(50), "silence", async || -> Result<()> {
        std::future::pending().await
    });
    let error = format!("{:#}", answer.await.expect_err("nobody answers"));
    assert_eq!(error, "not within 50ms: silence: the first question was not answered");
}
