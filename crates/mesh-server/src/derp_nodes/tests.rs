use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use mesh_model::{Clock as _, PreauthKeyId, TailnetId};
use mesh_state::{Command, Loaded, NewPreauthKey, Outcome, Settings, State};
use mesh_store::{EPOCHS_MAX, Writer};
use mesh_testkit::random::Random;
use mesh_testkit::{
    MemoryDatabase, TestClock, at, new_preauth_key, new_user, node_key, registration, seeds,
};

use super::*;

/// Seeds of the law.
const CASES: u64 = 64;

/// Commands per seed.
const STEPS: usize = 40;

/// A store with a clock to turn.
struct World {
    store: Handle,
    clock: Arc<TestClock>,
    preauth_key: PreauthKeyId,
    users: u64,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(TestClock::new(at(0)));
        let settings = Settings::default();
        let state =
            State::new(TailnetId(1), Loaded::default(), Arc::default(), settings, clock.now());
        let (writer, store) = Writer::new(state, Arc::<MemoryDatabase>::default(), clock.clone());
        tokio::spawn(writer.run(CancellationToken::new()));
        let mut world = Self { store, clock, preauth_key: PreauthKeyId(0), users: 0 };
        world.publish().await;
        let user = world.store.snapshot().tailnet.users().next().unwrap().id;
        let key = NewPreauthKey { reusable: true, ..new_preauth_key("k", user) };
        let Outcome::PreauthKey(key) = world.submit(Command::CreatePreauthKey(key)).await else {
            panic!("a preauth key is made");
        };
        world.preauth_key = key.id;
        world
    }

    async fn submit(&self, command: Command) -> Outcome {
        self.store.submit(command).await.unwrap()
    }

    /// Publishes an epoch, with whatever has fallen due.
    async fn publish(&mut self) {
        self.users += 1;
        self.submit(Command::CreateUser(new_user(&format!("user-{}", self.users)))).await;
    }

    async fn register(&self, machine: u64, key: u64) {
        let mut registration = registration(machine, key);
        registration.preauth_key = Some(self.preauth_key);
        // Another machine's key is refused.
        let _ = self.store.submit(Command::Register(Box::new(registration))).await;
    }

    async fn step(&mut self, random: &mut Random) {
        let nodes: Vec<_> = self.store.snapshot().tailnet.nodes().map(|node| node.id).collect();
        let number = |random: &mut Random| u64::try_from(random.below(6)).unwrap();
        match random.below(5) {
            0 if !nodes.is_empty() => {
                let node = random.pick(&nodes);
                self.submit(Command::DeleteNode { node }).await;
            }
            1 if !nodes.is_empty() => {
                let span = Duration::from_secs(number(random));
                let expires_at = random.chance(80).then(|| self.clock.now() + span);
                let node = random.pick(&nodes);
                self.submit(Command::SetNodeExpiry { node, expires_at }).await;
            }
            2 => {
                self.clock.advance(Duration::from_secs(number(random)));
                self.publish().await;
            }
            _ => self.register(number(random), number(random)).await,
        }
    }
}

/// What somebody knows who was told all changes.
struct Told(HashSet<NodePublic>);

impl Told {
    fn take(&mut self, changes: KeyChanges) {
        for key in changes.removed {
            assert!(self.0.remove(&key), "{key} was not served");
        }
        for key in changes.admitted {
            assert!(self.0.insert(key), "{key} was served already");
        }
    }
}

fn naive(snapshot: &Snapshot) -> HashSet<NodePublic> {
    let nodes = snapshot.tailnet.nodes().filter(|node| !node.is_expired(snapshot.at));
    nodes.map(|node| node.node_key).collect()
}

#[tokio::test]
async fn whoever_is_told_all_changes_knows_who_is_served() {
    for seed in seeds::seeds(CASES, &[]) {
        let mut random = Random::new(seed);
        let mut world = World::new().await;
        let mut keys = ServedKeys::new(world.store.clone());
        let mut told = Told(keys.all().into_iter().collect());
        for _ in 0..STEPS {
            world.step(&mut random).await;
            if random.chance(50) {
                continue;
            }
            while let Some(changes) = keys.changed().now_or_never() {
                told.take(changes.unwrap());
            }
            assert_eq!(told.0, naive(&world.store.snapshot()), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn whoever_falls_out_of_the_log_is_told_all_the_same() {
    let world = World::new().await;
    world.register(1, 1).await;
    let mut keys = ServedKeys::new(world.store.clone());
    let node = world.store.snapshot().tailnet.nodes().next().unwrap().id;
    world.submit(Command::DeleteNode { node }).await;
    world.register(2, 2).await;
    let node = world.store.snapshot().tailnet.nodes().next().unwrap().id;
    for span in 1..=EPOCHS_MAX {
        let expires_at = Some(world.clock.now() + Duration::from_mins(span.try_into().unwrap()));
        world.submit(Command::SetNodeExpiry { node, expires_at }).await;
    }
    assert!(world.store.since(keys.seen.epoch).is_none());
    let changes = keys.changed().await.unwrap();
    assert_eq!(changes, KeyChanges { admitted: vec![node_key(2)], removed: vec![node_key(1)] });
}
