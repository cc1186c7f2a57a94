//! Sentences about the node store, on a database in memory and a clock that the tests turn.

mod batches;
mod epochs;
mod failures;
mod stop;
mod sweeps;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mesh_model::{Node, NodeId, PreauthKeyId, TailnetId, UserId};
use mesh_state::{Command, Loaded, NodeUpdate, Outcome, Registration, Settings, State};
use mesh_store::{Handle, SubmitError, Writer};
use mesh_testkit::{MemoryDatabase, TestClock, at, new_preauth_key, new_user, registration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Answer = Result<Outcome, SubmitError>;

/// A node store that runs, with a user of id 1 and a reusable key of id 1.
struct Store {
    handle: Handle,
    database: Arc<MemoryDatabase>,
    clock: Arc<TestClock>,
    stop: CancellationToken,
    writer: JoinHandle<()>,
}

impl Store {
    async fn start() -> Self {
        Self::start_with(Settings::default(), |writer| writer).await
    }

    async fn start_with(
        settings: Settings,
        adjust: impl FnOnce(Writer<MemoryDatabase>) -> Writer<MemoryDatabase>,
    ) -> Self {
        let (database, clock) = (Arc::<MemoryDatabase>::default(), Arc::new(TestClock::new(at(0))));
        let state = State::new(TailnetId(1), Loaded::default(), Arc::default(), settings, at(0));
        let (writer, handle) = Writer::new(state, database.clone(), clock.clone());
        let stop = CancellationToken::new();
        let writer = tokio::spawn(adjust(writer).run(stop.clone()));
        let store = Self { handle, database, clock, stop, writer };
        store.must(Command::CreateUser(new_user("alice"))).await;
        let key = new_preauth_key("key1", UserId(1));
        let reusable = mesh_state::NewPreauthKey { reusable: true, ..key };
        store.must(Command::CreatePreauthKey(reusable)).await;
        store
    }

    async fn must(&self, command: Command) -> Outcome {
        self.handle.submit(command).await.expect("the command is carried out")
    }

    /// Submits all commands before the writer gets to the first of them.
    async fn submit_at_once(&self, commands: impl IntoIterator<Item = Command>) -> Vec<Answer> {
        let submissions = commands.into_iter().map(|command| self.handle.submit(command));
        tokio::task::unconstrained(join_all(submissions)).await
    }

    /// Registers a machine with the reusable key, and connects it.
    async fn join(&self, machine: u64) -> Node {
        let node = node_of(&self.must(register(machine)).await).id;
        let (node_key, disco_key) =
            (mesh_testkit::node_key(machine), mesh_testkit::disco_key(machine));
        self.must(Command::Connect { node, node_key, disco_key }).await;
        self.node(node).expect("the node is there")
    }

    fn node(&self, node: NodeId) -> Option<Node> {
        self.handle.snapshot().tailnet.node(node).map(|node| Node::clone(node))
    }

    /// Lets time pass, for the writer's timers and for its clock.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::sleep(time).await;
    }

    /// How many batches the database has taken.
    fn commits(&self) -> usize {
        self.database.commits().len()
    }
}

/// A registration with the reusable key.
fn register(machine: u64) -> Command {
    Command::Register(Box::new(Registration {
        preauth_key: Some(PreauthKeyId(1)),
        ..registration(machine, machine)
    }))
}

fn node_of(outcome: &Outcome) -> &Node {
    let Outcome::Registered(node) = outcome else { panic!("no node in {outcome:?}") };
    node
}

/// A lite update of what is a node's own to tell.
fn update(node: &Node, port: u16) -> Command {
    let endpoints = vec![([192, 0, 2, 1], port).into()];
    Command::UpdateNode(Box::new(NodeUpdate { endpoints, ..update_of(node) }))
}

/// A lite update of a node that has lost its endpoints.
fn update_of(node: &Node) -> NodeUpdate {
    NodeUpdate {
        node: node.id,
        node_key: node.node_key,
        disco_key: node.disco_key,
        hostinfo: None,
        endpoints: Vec::new(),
        home_derp: None,
        capability_version: node.capability_version,
    }
}
