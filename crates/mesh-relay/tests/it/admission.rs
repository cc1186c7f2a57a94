//! Who is let in by an admission that takes its time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use mesh_derp::ClientInfo;
use mesh_keys::{DerpPrivate, MeshKey, NodePublic};
use mesh_relay::{Admission, Candidate, LOGIN_DEADLINE, Relay, Upgrade};
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Client, node};

/// Where all clients come from.
const REMOTE: [u8; 4] = [192, 0, 2, 7];

/// What the relay asks, with the way to answer.
type Question = (Candidate, oneshot::Sender<bool>);

/// Passes on what it is asked.
struct Asking {
    questions: mpsc::Sender<Question>,
    /// What it says from memory.
    admits: Arc<AtomicBool>,
}

impl Admission for Asking {
    fn ask<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        let (reply, answer) = oneshot::channel();
        let question = (*candidate, reply);
        async { self.questions.send(question).await.is_ok() && answer.await == Ok(true) }.boxed()
    }

    fn admits(&self, _: &NodePublic) -> bool {
        self.admits.load(Ordering::Relaxed)
    }
}

struct World {
    relay: Relay,
    questions: Mutex<mpsc::Receiver<Question>>,
    admits: Arc<AtomicBool>,
}

impl World {
    fn new() -> Self {
        let (sender, questions) = mpsc::channel(10);
        let admits = Arc::new(AtomicBool::new(true));
        let admission = Asking { questions: sender, admits: Arc::clone(&admits) };
        let key = DerpPrivate::from_bytes([0x52; 32]);
        let mesh_key = Some(mesh_key());
        let stop = CancellationToken::new();
        let relay = Relay::with_mesh_key(key, mesh_key, Arc::new(admission), stop);
        Self { relay, questions: Mutex::new(questions), admits }
    }

    /// A client on its way in; an error if it is turned away.
    fn login(
        &self,
        number: u8,
        info: ClientInfo,
    ) -> AbortOnDropHandle<anyhow::Result<Client<DuplexStream>>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let relay = self.relay.clone();
        let remote = Some(SocketAddr::from((REMOTE, 1234)));
        tokio::spawn(async move { relay.serve_upgraded(theirs, Upgrade::Derp, remote).await });
        let login = async move { Client::log_in_as(ours, &node(number), &info).await };
        AbortOnDropHandle::new(tokio::spawn(login))
    }

    async fn question(&self) -> Question {
        self.questions.lock().await.recv().await.expect("the relay is there")
    }

    fn refused(&self) -> u64 {
        self.relay.stats().logins_refused.load(Ordering::Relaxed)
    }
}

fn mesh_key() -> MeshKey {
    MeshKey::from_bytes([7; 32]).expect("a key")
}

#[tokio::test]
async fn the_answer_lets_in_or_turns_away() {
    let world = World::new();
    for allow in [true, false] {
        let login = world.login(1, ClientInfo::default());
        let (candidate, reply) = world.question().await;
        let source = Some(IpAddr::from(REMOTE));
        assert_eq!(candidate, Candidate { key: node(1).public(), source });
        reply.send(allow).expect("the relay waits");
        assert_eq!(login.await.expect("no panic").is_ok(), allow);
    }
    assert_eq!(world.refused(), 1);
}

#[tokio::test]
async fn a_login_that_waits_for_its_answer_keeps_nobody_else_waiting() {
    let world = World::new();
    let first = world.login(1, ClientInfo::default());
    let (_, first_reply) = world.question().await;
    let second = world.login(2, ClientInfo::default());
    let (_, reply) = world.question().await;
    reply.send(true).expect("the relay waits");
    second.await.expect("no panic").expect("a login");
    assert!(!world.relay.is_connected(&node(1).public()));
    first_reply.send(true).expect("the relay waits");
    first.await.expect("no panic").expect("a login");
}

#[tokio::test]
async fn who_ceases_to_be_admitted_while_it_waits_does_not_get_in() {
    let world = World::new();
    let login = world.login(1, ClientInfo::default());
    let (_, reply) = world.question().await;
    world.admits.store(false, Ordering::Relaxed);
    reply.send(true).expect("the relay waits");
    assert!(login.await.expect("no panic").is_err());
    assert_eq!(world.refused(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_ends_with_the_login() {
    let world = World::new();
    let since = Instant::now();
    let login = world.login(1, ClientInfo::default());
    let (_, mut reply) = world.question().await;
    assert!(login.await.expect("no panic").is_err());
    assert_eq!(since.elapsed().as_secs(), LOGIN_DEADLINE.as_secs());
    reply.closed().await;
}

#[tokio::test]
async fn other_relays_of_the_mesh_are_not_asked_about() {
    let world = World::new();
    world.admits.store(false, Ordering::Relaxed);
    let info = ClientInfo { mesh_key: Some(mesh_key()), ..ClientInfo::default() };
    world.login(1, info).await.expect("no panic").expect("a login");
    assert!(world.questions.lock().await.try_recv().is_err());
}
