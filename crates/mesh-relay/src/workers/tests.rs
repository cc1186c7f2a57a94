use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_derp::{ClientInfo, ClientLogin};
use mesh_keys::{DerpPrivate, NodePrivate, NodePublic};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::connection::read_more;
use crate::{Relay, Upgrade};

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

/// A task that panics when it is dropped.
struct Bomb;

impl Future for Bomb {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn a_panic_at_the_very_end_of_a_task_ends_no_thread() {
    let workers = Workers::start().unwrap();
    for _ in 0..32 {
        workers.spawn(Bomb);
    }
    let (done, all) = mpsc::channel();
    for _ in 0..32 {
        let done = done.clone();
        workers.spawn(async move { done.send(()).unwrap() });
    }
    for _ in 0..32 {
        all.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn turns_that_charge_nothing_leave_room_for_others() {
    let inbox = Arc::new(Inbox::default());
    let mut worker = Worker::new(Arc::clone(&inbox));
    for _ in 0..3 {
        inbox.lock().new.push(Box::pin(async {
            loop {
                yield_now_here().await;
            }
        }));
    }
    let (log, turns) = mpsc::channel();
    inbox.lock().new.push(Box::pin(async move {
        loop {
            charge(ROUND_CHARGE);
            log.send(()).unwrap();
            yield_now_here().await;
        }
    }));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..400 {
        assert!(Pin::new(&mut worker).poll(&mut cx).is_pending());
    }
    let turns = turns.try_iter().count();
    assert!((95..=110).contains(&turns), "{turns} turns of 400 rounds, of which four share");
}

#[tokio::test]
async fn what_is_read_before_a_login_and_its_secret_are_charged() {
    CHARGED.set(0);
    let mut input = BytesMut::from("GET /");
    read_more(&mut &b"derp"[..], &mut input).await.unwrap();
    assert_eq!(CHARGED.get(), 9, "all of it is looked at anew");

    let admit = Arc::new(|_: &NodePublic| true);
    let relay = Relay::new(DerpPrivate::from_bytes([1; 32]), admit, CancellationToken::new());
    let login = ClientLogin::new(&NodePrivate::from_bytes([2; 32]), &relay.public_key()).unwrap();
    let mut hello = Vec::new();
    login.encode_client_info([1; 24], &ClientInfo::default(), &mut hello);
    let (mut ours, theirs) = duplex(1 << 10);
    ours.write_all(&hello).await.unwrap();
    ours.shutdown().await.unwrap();
    CHARGED.set(0);
    relay.serve_upgraded(theirs, Upgrade::Derp, None).await;
    ours.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(CHARGED.get() > HANDSHAKE_CHARGE, "{}", CHARGED.get());
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
