//! A server and its clients, to which steps happen.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mesh_model::{Clock, NodeId, PreauthKeyId, TailnetId, UserId};
use mesh_netmap::MapContext;
use mesh_state::{
    Command, Loaded, NewPreauthKey, NewUser, NodeUpdate, Outcome, Registration, Settings, State,
};
use mesh_store::{SubmitError, Writer};
use mesh_streamer::{Compression, StreamerSettings};
use mesh_testkit::random::Sections;
use mesh_testkit::{disco_key, new_preauth_key, new_user, registration};
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, QUIET, context};

use super::change::{Change, PREAUTH_KEYS};
use super::client::{Client, Told};
use super::clock::VirtualClock;
use super::database::Database;
use super::plan::{Plan, Step};

/// How often everybody may read before all is calm.
const ROUNDS_MAX: usize = 100;

/// A client on its way to a stream.
struct Opening {
    node: NodeId,
    compression: Compression,
    is_prompt: bool,
    connected: JoinHandle<Result<Outcome, SubmitError>>,
}

/// A server and its clients.
pub(super) struct World {
    lab: Lab,
    clock: Arc<VirtualClock>,
    database: Arc<Database>,
    contexts: [Arc<MapContext>; 4],
    sections: Option<Sections>,
    clients: Vec<Client>,
    openings: Vec<Opening>,
    asked: Vec<JoinHandle<Result<Outcome, SubmitError>>>,
    tally: Tally,
}

impl World {
    /// A tailnet whose nodes have told of themselves and have open streams that nobody has read.
    pub(super) async fn new(plan: &Plan) -> Self {
        let (clock, database) = (Arc::new(VirtualClock::new()), Arc::<Database>::default());
        let settings = Settings {
            node_expiry: plan.keys_expire.then_some(Duration::from_mins(1)),
            ephemeral_timeout: Duration::from_secs(20),
            ..Settings::default()
        };
        let state =
            State::new(TailnetId(1), Loaded::default(), Arc::default(), settings, clock.now());
        let contexts = contexts();
        let (writer, store) = Writer::new(state, database.clone(), clock.clone());
        tokio::spawn(writer.run(CancellationToken::new()));
        let lab = Lab::around(store, clock.clone(), contexts[0].clone());
        let mut world = Self {
            lab,
            clock,
            database,
            contexts,
            sections: None,
            clients: Vec::new(),
            openings: Vec::new(),
            asked: Vec::new(),
            tally: Tally::default(),
        };
        world.populate(plan).await;
        world
    }

    async fn populate(&mut self, plan: &Plan) {
        for name in ["alice", "bob"] {
            let email = format!("{name}@example.com");
            self.lab.must(Command::CreateUser(NewUser { email, ..new_user(name) })).await;
        }
        for number in 1..=PREAUTH_KEYS {
            let user = UserId(if number == 2 { 2 } else { 1 });
            let tags = if number == 3 { vec!["tag:web".parse().expect("a tag")] } else { vec![] };
            let key = new_preauth_key(&format!("key{number}"), user);
            let key = NewPreauthKey { reusable: true, ephemeral: number == 4, tags, ..key };
            self.lab.must(Command::CreatePreauthKey(key)).await;
        }
        for number in 1..=plan.nodes as u64 {
            let preauth_key = Some(PreauthKeyId(1 + number % PREAUTH_KEYS));
            let registration = Registration { preauth_key, ..registration(number, number) };
            self.lab.must(Command::Register(Box::new(registration))).await;
        }
        if let Some(seed) = plan.policy {
            self.change(&Change::SetPolicy { seed });
        }
        for pick in 0..plan.nodes {
            let compression = if pick % 2 == 0 { Compression::None } else { Compression::Zstd };
            self.open(pick, compression, pick % 4 != 3);
        }
        self.settle(Duration::from_millis(1)).await.expect("all streams open");
    }

    /// Does what a step says.
    pub(super) async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Change(change) => self.change(change),
            Step::Pass { ms } => return self.pass(Duration::from_millis(*ms)).await,
            Step::Read { pick, ms } => {
                let count = self.clients.len().max(1);
                if let Some(client) = self.clients.get_mut(pick % count) {
                    client.read(Duration::from_millis(*ms)).await?;
                }
                return self.bury();
            }
            Step::Open { pick, compression, is_prompt } => {
                self.open(*pick, *compression, *is_prompt);
            }
            Step::HangUp { pick } => {
                if !self.clients.is_empty() {
                    let client = self.clients.swap_remove(pick % self.clients.len());
                    self.tally.told.add(client.told);
                }
            }
            Step::Context(number) => {
                self.lab.contexts.send_replace(self.contexts[*number].clone());
            }
            Step::Burst { pick, changes, gap_ms } => {
                return self.burst(*pick, *changes, Duration::from_millis(*gap_ms)).await;
            }
            Step::Database { commit_ms, is_down } => self.database.set(*commit_ms, *is_down),
            Step::CatchUp => return self.catch_up().await,
        }
        Ok(())
    }

    fn change(&mut self, change: &Change) {
        let snapshot = self.lab.store.snapshot();
        let command = change.command(&snapshot, self.clock.now(), &mut self.sections);
        if let Some(command) = command {
            self.ask(command);
        }
    }

    fn ask(&mut self, command: Command) {
        let store = self.lab.store.clone();
        self.asked.push(tokio::spawn(async move { store.submit(command).await }));
    }

    fn open(&mut self, pick: usize, compression: Compression, is_prompt: bool) {
        let (store, snapshot) = (self.lab.store.clone(), self.lab.store.snapshot());
        let nodes: Vec<_> = snapshot.tailnet.nodes().collect();
        let Some(node) = nodes.get(pick % nodes.len().max(1)) else { return };
        let (node, node_key) = (node.id, node.node_key);
        let disco_key = disco_key(node.0.into());
        let connect = Command::Connect { node, node_key, disco_key };
        let connected = tokio::spawn(async move { store.submit(connect).await });
        self.openings.push(Opening { node, compression, is_prompt, connected });
    }

    /// Makes clients of those that have been let in meanwhile.
    async fn let_in(&mut self) {
        for opening in std::mem::take(&mut self.openings) {
            if !opening.connected.is_finished() {
                self.openings.push(opening);
                continue;
            }
            let Opening { node, compression, is_prompt, connected } = opening;
            if let Ok(Outcome::Connected(session)) = connected.await.expect("it does not panic") {
                let stream = self.lab.streamer.open(node, session, compression);
                self.clients.push(Client::new((node, session), stream, compression, is_prompt));
            }
        }
    }

    /// Lets time pass, in which prompt clients read.
    async fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.let_in().await;
        let prompt = self.clients.iter_mut().filter(|client| client.is_prompt);
        let reading = join_all(prompt.map(|client| client.read(time)));
        let ((), read) = tokio::join!(tokio::time::sleep(time), reading);
        read.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.let_in().await;
        self.bury()
    }

    /// Drops the clients whose streams are over, for good reason.
    fn bury(&mut self) -> Result<(), String> {
        let snapshot = self.lab.store.snapshot();
        for client in self.clients.extract_if(.., |client| client.has_ended) {
            client.check_end(&snapshot)?;
            self.tally.ended += 1;
            self.tally.told.add(client.told);
        }
        Ok(())
    }

    /// Moves a node about.
    async fn burst(&mut self, pick: usize, changes: u16, gap: Duration) -> Result<(), String> {
        for port in 1..=changes {
            let snapshot = self.lab.store.snapshot();
            let nodes: Vec<_> = snapshot.tailnet.nodes().collect();
            let Some(node) = nodes.get(pick % nodes.len().max(1)) else { break };
            self.ask(Command::UpdateNode(Box::new(NodeUpdate {
                node: node.id,
                node_key: node.node_key,
                disco_key: node.disco_key,
                hostinfo: None,
                endpoints: vec![([192, 0, 2, 1], port).into()],
                home_derp: None,
                capability_version: node.capability_version,
            })));
            if gap.is_zero() {
                tokio::task::yield_now().await;
            } else {
                self.pass(gap).await?;
            }
        }
        Ok(())
    }

    /// Waits until all that was asked for is done.
    async fn settle(&mut self, pause: Duration) -> Result<(), String> {
        for asked in std::mem::take(&mut self.asked) {
            asked
                .await
                .expect("it does not panic")
                .err()
                .filter(|error| *error == SubmitError::Closed)
                .map_or(Ok(()), |error| Err(error.to_string()))?;
        }
        while !self.openings.is_empty() {
            tokio::time::sleep(pause).await;
            self.let_in().await;
        }
        Ok(())
    }

    /// Everybody hangs up, and after a while nobody is online.
    pub(super) async fn end(&mut self) -> Result<Tally, String> {
        for client in self.clients.drain(..) {
            self.tally.told.add(client.told);
        }
        tokio::time::sleep(StreamerSettings::default().offline_grace + QUIET).await;
        let snapshot = self.lab.store.snapshot();
        match snapshot.tailnet.nodes().find(|node| node.session.is_some()) {
            Some(node) => Err(format!("node {} is online, but nobody is there", node.id)),
            None => Ok(self.tally),
        }
    }

    /// Lets everybody read until there is nothing more to tell, and checks what they know.
    async fn catch_up(&mut self) -> Result<(), String> {
        self.database.set(0, false);
        self.settle(Duration::from_millis(1)).await?;
        for _ in 0..ROUNDS_MAX {
            let before = self.lab.store.snapshot().epoch;
            let reading = join_all(self.clients.iter_mut().map(|client| client.read(QUIET)));
            let news = reading.await.into_iter().collect::<Result<Vec<bool>, _>>()?;
            self.bury()?;
            if news.contains(&true) || self.lab.store.snapshot().epoch != before {
                continue;
            }
            let (snapshot, context) =
                (self.lab.store.snapshot(), self.lab.contexts.borrow().clone());
            self.tally.compared += self.clients.len();
            return self.clients.iter().try_for_each(|client| {
                client.check_end(&snapshot)?;
                client.check(&snapshot, &context)
            });
        }
        Err("it does not calm down".to_owned())
    }
}

/// What a simulation has come by, to see that it comes by everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Clients that were compared with the full netmap.
    pub(super) compared: usize,
    /// Streams that ended before their clients hung up.
    pub(super) ended: usize,
    /// What clients were told.
    pub(super) told: Told,
}

impl Tally {
    pub(super) fn add(&mut self, more: Self) {
        self.compared += more.compared;
        self.ended += more.ended;
        self.told.add(more.told);
    }
}

fn contexts() -> [Arc<MapContext>; 4] {
    let with_regions = |regions: &[u32]| {
        let mut context = MapContext::clone(&context("tail.example"));
        let region = |id: &u32| {
            let region_id = DerpRegionId(*id);
            (region_id, DerpRegion { region_id, ..DerpRegion::default() })
        };
        let regions = Some(regions.iter().map(region).collect());
        context.derp_map = Arc::new(DerpMap { regions, ..DerpMap::default() });
        context
    };
    let mut with_dns = with_regions(&[1, 2]);
    with_dns.dns.domains = vec!["tail.example".to_owned()];
    [with_regions(&[1, 2]), with_regions(&[2]), with_regions(&[]), with_dns].map(Arc::new)
}
