//! A tailnet whose every epoch is kept, changed by commands as the node store changes one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Hostinfo, Node, NodeId, PreauthKeyId, TailnetId, Timestamp, UserId};
use mesh_netmap::MapContext;
use mesh_policy::Policy;
use mesh_state::{
    ChangeSet, Command, Loaded, NewPreauthKey, NewUser, NodeUpdate, Outcome, Refusal, Registration,
    Settings, Snapshot, State,
};
use mesh_testkit::{
    at, commands, context, disco_key, new_preauth_key, new_user, node_key, registration,
};
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId, DnsConfig};

/// Reusable keys: of user 1, of user 2, of tags, and of user 1 for ephemeral nodes.
pub(crate) const ALICES: PreauthKeyId = PreauthKeyId(1);
pub(crate) const BOBS: PreauthKeyId = PreauthKeyId(2);
pub(crate) const TAGGED: PreauthKeyId = PreauthKeyId(3);
pub(crate) const EPHEMERAL: PreauthKeyId = PreauthKeyId(4);

/// How long a person's key lives where keys expire.
pub(crate) const LIFETIME: Duration = Duration::from_mins(1);

/// A tailnet of users alice (1) and bob (2).
pub(crate) struct House {
    state: State,
    /// Seconds on the clock.
    pub(crate) now: i64,
    /// All snapshots, and what each changed.
    epochs: Vec<(Snapshot, ChangeSet)>,
}

impl House {
    /// A tailnet whose keys do not expire.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    /// A tailnet whose people's keys live for [`LIFETIME`].
    pub(crate) fn with_expiry() -> Self {
        Self::with(Settings { node_expiry: Some(LIFETIME), ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        Self::of([new_user("alice"), new_user("bob")], settings)
    }

    /// A tailnet of two users.
    pub(crate) fn of(users: [NewUser; 2], settings: Settings) -> Self {
        let state = State::new(TailnetId(1), Loaded::default(), Arc::default(), settings, at(0));
        let first = (state.snapshot(at(0)), ChangeSet::default());
        let mut house = Self { state, now: 0, epochs: vec![first] };
        for user in users {
            house.must(Command::CreateUser(user));
        }
        for (number, user) in [1, 2, 1, 1].into_iter().enumerate() {
            house.must(Command::CreatePreauthKey(NewPreauthKey {
                reusable: true,
                ephemeral: number == 3,
                tags: if number == 2 { vec!["tag:web".parse().expect("a tag")] } else { vec![] },
                ..new_preauth_key(&format!("key{number}"), UserId(user))
            }));
        }
        house
    }

    /// Carries out commands as one batch, after what has fallen due.
    pub(crate) fn batch(&mut self, commands: &[Command]) -> Vec<Result<Outcome, Refusal>> {
        let context = context(at(self.now));
        let mut draft = self.state.draft();
        if self.state.next_deadline().is_some_and(|deadline| deadline <= context.now) {
            draft.apply(&Command::Sweep, &context).expect("a sweep is never refused");
        }
        let outcomes = commands.iter().map(|command| draft.apply(command, &context)).collect();
        let changes;
        (self.state, changes) = draft.finish();
        self.epochs.push((self.state.snapshot(context.now), changes));
        outcomes
    }

    /// Puts a policy in force.
    pub(crate) fn set_policy(&mut self, text: &str) {
        self.must(policy(text));
    }

    /// Carries out a command as a batch of its own.
    #[expect(clippy::needless_pass_by_value, reason = "commands are made where they are given")]
    pub(crate) fn must(&mut self, command: Command) -> Outcome {
        let outcome = self.batch(std::slice::from_ref(&command)).remove(0);
        outcome.unwrap_or_else(|refusal| panic!("{refusal} for {command:?}"))
    }

    /// Lets time pass, and does what falls due.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += i64::try_from(time.as_secs()).expect("a short time");
        self.batch(&[]);
    }

    pub(crate) fn newest(&self) -> &Snapshot {
        &self.epochs.last().expect("there is a first epoch").0
    }

    /// The epoch of the newest snapshot, to ask [`House::since`] later.
    pub(crate) fn cursor(&self) -> usize {
        self.epochs.len() - 1
    }

    /// The snapshot at a cursor, the newest, and what may differ between the two.
    pub(crate) fn since(&self, cursor: usize) -> (&Snapshot, &Snapshot, ChangeSet) {
        let mut changes = ChangeSet::default();
        for (_, later) in &self.epochs[cursor + 1..] {
            changes.extend(later);
        }
        (&self.epochs[cursor].0, self.newest(), changes)
    }

    pub(crate) fn time(&self) -> Timestamp {
        at(self.now)
    }

    pub(crate) fn node(&self, node: NodeId) -> Arc<Node> {
        self.newest().tailnet.node(node).expect("the node is there").clone()
    }

    /// Registers a machine with a preauth key; its node key has the machine's number.
    pub(crate) fn register(&mut self, machine: u64, key: PreauthKeyId) -> NodeId {
        let registration =
            Registration { preauth_key: Some(key), ..registration(machine, machine) };
        let outcome = self.must(Command::Register(Box::new(registration)));
        let Outcome::Registered(node) = outcome else { panic!("no node in {outcome:?}") };
        node.id
    }

    /// Registers a machine of alice's that comes online and tells of itself.
    pub(crate) fn join(&mut self, machine: u64) -> NodeId {
        self.join_with(machine, ALICES)
    }

    pub(crate) fn join_with(&mut self, machine: u64, key: PreauthKeyId) -> NodeId {
        let node = self.register(machine, key);
        self.connect(node);
        self.must(self.update(node, |_| {}));
        node
    }

    pub(crate) fn connect(&mut self, node: NodeId) {
        self.must(self.connecting(node));
    }

    /// What opens a map stream of a node.
    pub(crate) fn connecting(&self, node: NodeId) -> Command {
        let disco_key = disco_key(node.0.into());
        Command::Connect { node, node_key: self.node(node).node_key, disco_key }
    }

    /// Takes a node offline.
    pub(crate) fn disconnect(&mut self, node: NodeId) {
        let session = self.node(node).session.expect("the node is online");
        self.must(Command::Disconnect { node, session });
    }

    /// What a node tells of itself when it is as [`House::join`] left it but for `change`.
    pub(crate) fn update(&self, id: NodeId, change: impl FnOnce(&mut NodeUpdate)) -> Command {
        let node = self.node(id);
        let mut update = NodeUpdate {
            node: id,
            node_key: node.node_key,
            disco_key: node.disco_key,
            hostinfo: Some(node.hostinfo.clone()),
            endpoints: vec![([192, 0, 2, 1], 41_641).into()],
            home_derp: Some(1),
            capability_version: node.capability_version,
        };
        change(&mut update);
        Command::UpdateNode(Box::new(update))
    }

    /// Has a machine register a new node key in place of the one it has.
    pub(crate) fn rotate(&mut self, machine: u64, key: u64) {
        let old = self.newest().tailnet.nodes_of_machine(mesh_testkit::machine_key(machine)).next();
        let old_node_key = old.map(|node| node.node_key);
        let registration =
            Registration { preauth_key: Some(ALICES), old_node_key, ..registration(machine, key) };
        self.must(Command::Register(Box::new(registration)));
        assert!(self.newest().tailnet.node_by_key(&node_key(key)).is_some());
    }
}

/// Puts a policy in force.
pub(crate) fn policy(text: &str) -> Command {
    let policy = Policy::parse(text, None);
    let policy = policy.unwrap_or_else(|problems| panic!("{problems} in {text}"));
    commands::set_policy(text.to_owned(), policy)
}

/// Hostinfo of a node whose peer API listens on `port`.
pub(crate) fn with_peer_api(hostinfo: Hostinfo, port: u16) -> Hostinfo {
    let service =
        mesh_model::Service { proto: "peerapi4".to_owned(), port, description: String::new() };
    Hostinfo { services: vec![service], ..hostinfo }
}

/// A context with relays in these regions.
pub(crate) fn context_with(regions: impl IntoIterator<Item = u32>) -> Arc<MapContext> {
    let region = |id: u32| {
        let region_id = DerpRegionId(id);
        (region_id, DerpRegion { region_id, ..DerpRegion::default() })
    };
    let regions: BTreeMap<_, _> = regions.into_iter().map(region).collect();
    Arc::new(MapContext {
        base_domain: "tail.example".to_owned(),
        derp_map: Arc::new(DerpMap { regions: Some(regions), ..DerpMap::default() }),
        dns: DnsConfig { proxied: true, ..DnsConfig::default() },
    })
}
