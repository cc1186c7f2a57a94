//! What is read from disk is what was in memory, after whatever happened.

use std::time::Duration;

use mesh_db::Database;
use mesh_model::{
    ApiKeyId, AuthId, Hostinfo, NodeId, PreauthKeyId, SessionId, Tag, TailnetId, Timestamp, UserId,
};
use mesh_state::{
    Command, Context, NewPolicy, NewPreauthKey, NodeUpdate, Outcome, Registration, Settings, State,
};
use mesh_store::{Persist as _, PersistError};
use mesh_testkit::{auth_id, disco_key, new_preauth_key, new_user, node_key, registration};

use crate::on_both_engines;
use crate::scratch::{Scratch, at, contents};

on_both_engines!(memory_and_disk_agree_after_random_commands);

/// Each seed lives in a tailnet of its own. Seeds that failed once are added here.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Batches per seed.
const BATCHES: u32 = 200;

async fn memory_and_disk_agree_after_random_commands(scratch: &Scratch) {
    let database = scratch.open().await;
    let reader = scratch.open().await;
    for seed in SEEDS {
        let mut story = Story::begin(seed, &database).await;
        for number in 1..=BATCHES {
            story.go_on(&database).await;
            if number % 20 == 0 {
                story.compare(&reader).await;
            }
        }
        story.expect_richness();
    }
}

/// A small tailnet to which much happens.
struct Story {
    random: Random,
    tailnet: TailnetId,
    milliseconds: i64,
    state: State,
    logins: Vec<AuthId>,
    refused: u32,
    done: u32,
    most_nodes: usize,
}

impl Story {
    async fn begin(seed: u64, database: &Database) -> Self {
        let tailnet = TailnetId(seed);
        let settings = Settings {
            node_expiry: Some(Duration::from_hours(1)),
            ephemeral_timeout: Duration::from_mins(2),
            ..Settings::default()
        };
        let loaded = database.load(tailnet).await.unwrap();
        let state = State::new(tailnet, loaded, std::sync::Arc::default(), settings, at(0));
        let random = Random(seed);
        Self {
            random,
            tailnet,
            milliseconds: 0,
            state,
            logins: Vec::new(),
            refused: 0,
            done: 0,
            most_nodes: 0,
        }
    }

    /// Carries out some commands in one batch; if the database refuses it, one by one, as the store does.
    async fn go_on(&mut self, database: &Database) {
        self.milliseconds += i64::try_from(self.random.below(40_000)).unwrap();
        let commands: Vec<_> = (0..=self.random.below(8)).map(|_| self.command()).collect();
        if !self.commit(database, &commands).await {
            for command in commands {
                let alone = std::slice::from_ref(&command);
                assert!(self.commit(database, alone).await, "{} {command:?}", self.tailnet);
            }
        }
    }

    /// Whether the database took the batch.
    async fn commit(&mut self, database: &Database, commands: &[Command]) -> bool {
        let context = Context { now: at(self.milliseconds), entropy: self.random.next() };
        let mut draft = self.state.draft();
        for command in commands {
            match draft.apply(command, &context) {
                Ok(Outcome::NeedsLogin(id)) => self.logins.push(id),
                Ok(_) => self.done += 1,
                Err(_) => self.refused += 1,
            }
        }
        if let Some(batch) = draft.batch(context.now) {
            match database.commit(&batch).await {
                Ok(()) => {}
                Err(PersistError::Conflict { .. } | PersistError::Overtaken) => return false,
                Err(error) => panic!("{error:?}"),
            }
        }
        self.state = draft.finish().0;
        let snapshot = self.state.snapshot(context.now);
        self.most_nodes = self.most_nodes.max(snapshot.tailnet.node_count());
        true
    }

    async fn compare(&self, reader: &Database) {
        let loaded = reader.load(self.tailnet).await.unwrap();
        let snapshot = self.state.snapshot(at(self.milliseconds));
        assert_eq!(contents(&loaded.tailnet), contents(&snapshot.tailnet), "{}", self.tailnet);
        assert_eq!(loaded.revision, snapshot.revision);
        let batch = self.state.draft().batch(at(0));
        assert_eq!(batch, None, "nothing is left to write");
    }

    /// A story in which everything is refused would prove nothing.
    fn expect_richness(&self) {
        let snapshot = self.state.snapshot(at(self.milliseconds));
        let contents = contents(&snapshot.tailnet);
        assert!(self.done > 300, "{} done, {} refused", self.done, self.refused);
        assert!(snapshot.revision > 100, "revision {}", snapshot.revision);
        assert!(self.most_nodes > 3, "at most {} nodes", self.most_nodes);
        assert!(contents.tombstones.len() > 1, "{contents:?}");
    }

    fn command(&mut self) -> Command {
        match self.random.below(27) {
            0..=6 => Command::Register(Box::new(self.registration())),
            7 | 8 => match self.login() {
                Some(auth_id) => Command::ApproveLogin { auth_id, user: self.user() },
                None => Command::Sweep,
            },
            9 => match self.login() {
                Some(auth_id) => Command::RejectLogin { auth_id },
                None => Command::Sweep,
            },
            10 => Command::SetNodeExpiry { node: self.node(), expires_at: self.later() },
            11 => Command::RenameNode { node: self.node(), name: self.label() },
            12 => Command::TagNode { node: self.node(), tags: vec![self.tag()] },
            13 => Command::ApproveRoutes {
                node: self.node(),
                routes: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
            },
            14 => Command::DeleteNode { node: self.node() },
            15 => Command::CreateUser(new_user(&self.label())),
            16 => Command::RenameUser { user: self.user(), name: self.label() },
            17 if self.random.below(4) == 0 => Command::DeleteUser { user: self.user() },
            17..=19 => Command::CreatePreauthKey(self.new_preauth_key()),
            20 => match self.random.below(3) {
                0 => Command::DeletePreauthKey { key: self.preauth_key() },
                _ => Command::RevokePreauthKey { key: self.preauth_key() },
            },
            21 => self.api_key_command(),
            22 => Command::Connect {
                node: self.node(),
                node_key: node_key(self.small().into()),
                disco_key: disco_key(self.small().into()),
            },
            23 => {
                Command::Disconnect { node: self.node(), session: SessionId(self.random.below(50)) }
            }
            24 => Command::UpdateNode(Box::new(self.node_update())),
            25 => Command::SetPolicy(Box::new(self.new_policy())),
            _ => Command::Sweep,
        }
    }

    fn registration(&mut self) -> Registration {
        let known = self.preauth_key();
        Registration {
            old_node_key: self.maybe(2).then(|| node_key(self.small().into())),
            preauth_key: self.maybe(2).then_some(known),
            expiry: if self.maybe(8) { self.later() } else { None },
            fresh_auth_id: auth_id(self.random.next()),
            ephemeral: self.maybe(4),
            hostinfo: self.hostinfo(),
            ..registration(self.small().into(), self.small().into())
        }
    }

    fn hostinfo(&mut self) -> Hostinfo {
        Hostinfo { hostname: self.label(), ..Hostinfo::default() }
    }

    fn node_update(&mut self) -> NodeUpdate {
        let hostinfo = self.hostinfo();
        NodeUpdate {
            node: self.node(),
            node_key: node_key(self.small().into()),
            disco_key: disco_key(self.small().into()),
            hostinfo: self.maybe(2).then_some(hostinfo),
            endpoints: vec![([10, 0, 0, 1], 41641).into()],
            home_derp: self.maybe(2).then(|| self.small()),
            capability_version: 100 + self.small(),
        }
    }

    fn new_preauth_key(&mut self) -> NewPreauthKey {
        NewPreauthKey {
            tags: if self.maybe(4) { vec![self.tag()] } else { Vec::new() },
            reusable: self.maybe(2),
            ephemeral: self.maybe(4),
            expires_at: self.later(),
            ..new_preauth_key(&self.public_id(), self.user())
        }
    }

    /// What it says does not matter to the database.
    fn new_policy(&mut self) -> NewPolicy {
        NewPolicy {
            text: format!("{{}} // {}", self.small()),
            policy: std::sync::Arc::default(),
            created_by: "cli".to_owned(),
            replaces: None,
        }
    }

    fn api_key_command(&mut self) -> Command {
        let key = ApiKeyId(self.random.below(5));
        match self.random.below(4) {
            0 => Command::CreateApiKey {
                secret: new_preauth_key(&self.public_id(), UserId(1)).secret,
                expires_at: self.later(),
            },
            1 => Command::ExpireApiKey { key },
            2 => Command::DeleteApiKey { key },
            _ => Command::TouchApiKey { key },
        }
    }

    fn public_id(&mut self) -> String {
        format!("{:016x}", self.random.next())
    }

    fn login(&mut self) -> Option<AuthId> {
        let logins = self.logins.clone();
        self.pick(logins.into_iter())
    }

    /// One time in `times`.
    fn maybe(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    fn later(&mut self) -> Option<Timestamp> {
        let milliseconds = i64::try_from(self.random.below(3_600_000)).unwrap();
        self.maybe(2).then(|| at(self.milliseconds + milliseconds))
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.random.below(12)).unwrap()
    }

    fn label(&mut self) -> String {
        format!("name-{}", self.small())
    }

    fn tag(&mut self) -> Tag {
        format!("tag:t{}", self.small()).parse().unwrap()
    }

    fn user(&mut self) -> UserId {
        let snapshot = self.state.snapshot(at(0));
        self.pick(snapshot.tailnet.users().map(|user| user.id)).unwrap_or(UserId(0))
    }

    fn node(&mut self) -> NodeId {
        let snapshot = self.state.snapshot(at(0));
        self.pick(snapshot.tailnet.nodes().map(|node| node.id)).unwrap_or(NodeId(0))
    }

    fn preauth_key(&mut self) -> PreauthKeyId {
        let snapshot = self.state.snapshot(at(0));
        self.pick(snapshot.tailnet.preauth_keys().map(|key| key.id)).unwrap_or(PreauthKeyId(0))
    }

    /// One of those that there are, or sometimes none.
    fn pick<T>(&mut self, ids: impl Iterator<Item = T>) -> Option<T> {
        let mut ids: Vec<_> = ids.collect();
        let index = usize::try_from(self.random.below(ids.len() as u64 + 1)).unwrap();
        (index < ids.len()).then(|| ids.swap_remove(index))
    }
}

/// `SplitMix64`: numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
