//! Sentences about the state, and the laws that hold after any sequence of commands.

#![expect(clippy::needless_pass_by_value, reason = "commands are made where they are given")]
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else an outcome is, it is wrong")]

mod laws;
mod logins;
mod names_and_addresses;
mod policy;
mod registration;
mod time;

use std::sync::Arc;

use mesh_model::{Node, NodeId, PreauthKeyId, Tailnet, TailnetId, Timestamp, UserId};
use mesh_policy::Policy;
use mesh_testkit::{Rows, at, context, new_preauth_key, new_user};

use mesh_state::{
    ChangeSet, Command, Loaded, Logins, NewPolicy, NewPreauthKey, Outcome, Refusal, Registration,
    Settings, State,
};

/// A state with the rows that a database would hold, and a user `alice`.
struct House {
    state: State,
    rows: Rows,
    now: Timestamp,
    /// What the last command changed.
    changes: ChangeSet,
}

impl House {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let state = State::new(TailnetId(1), Loaded::default(), Arc::default(), settings, at(0));
        let (rows, changes) = (Rows::default(), ChangeSet::default());
        let mut house = Self { state, rows, now: at(0), changes };
        house.must(Command::CreateUser(new_user("alice")));
        house
    }

    /// Carries out one command as a batch of its own.
    fn apply(&mut self, command: Command) -> Result<Outcome, Refusal> {
        let mut draft = self.state.draft();
        let outcome = draft.apply(&command, &context(self.now))?;
        if let Some(batch) = draft.batch(self.now) {
            self.rows.commit(&batch).unwrap_or_else(|error| panic!("{error:?} by {command:?}"));
        }
        (self.state, self.changes) = draft.finish();
        Ok(outcome)
    }

    fn must(&mut self, command: Command) -> Outcome {
        self.apply(command.clone()).unwrap_or_else(|refusal| panic!("{refusal} for {command:?}"))
    }

    fn register(&mut self, registration: Registration) -> Result<Outcome, Refusal> {
        self.apply(Command::Register(Box::new(registration)))
    }

    /// The node of an outcome that has one.
    fn node(outcome: Outcome) -> Arc<Node> {
        match outcome {
            Outcome::Registered(node) | Outcome::Node(node) => node,
            other => panic!("no node in {other:?}"),
        }
    }

    fn must_register(&mut self, registration: Registration) -> Arc<Node> {
        let outcome = self.register(registration.clone());
        Self::node(outcome.unwrap_or_else(|refusal| panic!("{refusal} for {registration:?}")))
    }

    fn key(&mut self, change: impl FnOnce(&mut NewPreauthKey)) -> PreauthKeyId {
        let number = self.tailnet().preauth_keys().count();
        let mut key = new_preauth_key(&format!("key{number}"), UserId(1));
        change(&mut key);
        match self.must(Command::CreatePreauthKey(key)) {
            Outcome::PreauthKey(key) => key.id,
            other => panic!("no key in {other:?}"),
        }
    }

    /// A node that came in with a key of its own and whose client has connected.
    fn connected(&mut self, machine: u64) -> Arc<Node> {
        let key = self.key(|_| {});
        let registration =
            Registration { preauth_key: Some(key), ..mesh_testkit::registration(machine, machine) };
        let node = self.must_register(registration);
        self.connect(&node);
        self.get(node.id)
    }

    fn connect(&mut self, node: &Node) {
        self.must(Command::Connect {
            node: node.id,
            node_key: node.node_key,
            disco_key: mesh_testkit::disco_key(node.id.0.into()),
        });
    }

    fn set_policy(&mut self, text: &str) -> Result<Outcome, Refusal> {
        self.apply(set_policy(text))
    }

    fn must_set_policy(&mut self, text: &str) {
        self.must(set_policy(text));
    }

    fn tailnet(&self) -> Tailnet {
        self.state.snapshot(self.now).tailnet
    }

    fn logins(&self) -> Logins {
        self.state.snapshot(self.now).logins
    }

    fn get(&self, node: NodeId) -> Arc<Node> {
        self.tailnet().node(node).expect("the node is there").clone()
    }

    fn has(&self, node: NodeId) -> bool {
        self.tailnet().node(node).is_some()
    }
}

/// Puts a policy in force in place of whatever is.
fn set_policy(text: &str) -> Command {
    Command::SetPolicy(Box::new(NewPolicy {
        text: text.to_owned(),
        policy: parse(text),
        created_by: "cli".to_owned(),
        replaces: None,
    }))
}

fn parse(text: &str) -> Arc<Policy> {
    Policy::parse(text, None).unwrap_or_else(|problems| panic!("{problems}")).into()
}
