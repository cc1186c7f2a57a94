use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn tasks_run_to_their_end_and_wake_each_other_across_threads() {
    let workers = Workers::start().unwrap();
    let (done, all) = mpsc::channel();
    for number in 0..100 {
        let (send, receive) = oneshot::channel();
        let done = done.clone();
        workers.spawn(async move {
            yield_now().await;
            let number: u32 = receive.await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            done.send(number).unwrap();
        });
        workers.spawn(async move { send.send(number).unwrap() });
    }
    let mut came: Vec<u32> = (0..100).map(|_| all.recv_timeout(PATIENCE).unwrap()).collect();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..100));
}

#[test]
fn a_panic_ends_its_own_task_alone() {
    let workers = Workers::start().unwrap();
    let (done, all) = mpsc::channel();
    for number in 0..8 {
        let done = done.clone();
        workers.spawn(async move {
            yield_now().await;
            assert!(number % 2 == 0, "an odd one");
            done.send(number).unwrap();
        });
    }
    drop(done);
    let mut came: Vec<i32> = all.iter().collect();
    came.sort_unstable();
    assert_eq!(came, [0, 2, 4, 6]);
}

#[test]
fn a_quiet_task_waits_for_no_queue_of_busy_ones() {
    let inbox = Arc::new(Inbox::default());
    let mut worker = Worker::new(Arc::clone(&inbox));
    let (log, turns) = mpsc::channel();
    for _ in 0..50 {
        let log = log.clone();
        inbox.lock().new.push(Box::pin(async move {
            loop {
                charge(ROUND_CHARGE);
                log.send("busy").unwrap();
                yield_now_here().await;
            }
        }));
    }
    let (send, receive) = oneshot::channel::<()>();
    inbox.lock().new.push(Box::pin(async move {
        receive.await.unwrap();
        log.send("quiet").unwrap();
    }));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..500 {
        assert!(Pin::new(&mut worker).poll(&mut cx).is_pending());
    }
    send.send(()).unwrap();
    turns.try_iter().for_each(drop);
    assert!(Pin::new(&mut worker).poll(&mut cx).is_pending());
    assert_eq!(turns.try_iter().next(), Some("quiet"));
}

#[test]
fn tasks_end_with_their_workers() {
    let workers = Workers::start().unwrap();
    let (alive, ended) = mpsc::channel::<()>();
    workers.spawn(async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    });
    drop(workers);
    assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

/// Gives others their turn, on a worker that no runtime drives.
async fn yield_now_here() {
    let mut is_second = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
