//! What a command costs in tailnets of 2000 to 250,000 nodes: a registration and an update of a node, each decided,
//! made a batch and published, while readers hold the last snapshots. The figures of a column should be alike: snapshots
//! share what did not change. All is CPU time. Then how long such a tailnet takes from rows in memory to a state.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]

use std::collections::VecDeque;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{NodeId, PreauthKeyId, Tailnet, TailnetId, UserId};
use mesh_state::{
    Command, Counters, Loaded, NewPreauthKey, NodeUpdate, Registration, Settings, Snapshot, State,
};
use mesh_testkit::{at, context, disco_key, new_preauth_key, new_user, node_key, registration};
use rustix::time::{ClockId, clock_gettime};

/// Nodes at the start.
const SIZES: [u64; 4] = [2_000, 10_000, 100_000, 250_000];

/// Under `cargo test`, which only wants to know that it runs.
const SIZES_IN_TEST: [u64; 1] = [50];

/// How often each is measured.
const ROUNDS: u64 = 300;

/// How many snapshots readers hold.
const HELD: usize = 64;

fn main() {
    let is_measured = env::args().any(|argument| argument == "--bench");
    let sizes: &[u64] = if is_measured { &SIZES } else { &SIZES_IN_TEST };
    println!("| nodes | registration, median | update, median | 256 registrations | start |");
    println!("|---|---|---|---|---|");
    for size in sizes {
        measure(*size);
    }
}

fn measure(size: u64) {
    let rows = tailnet(size);
    let start = cpu_time();
    let state = State::new(TailnetId(1), rows, Arc::default(), Settings::default(), at(0));
    let started = cpu_time().saturating_sub(start);
    let mut bench = Bench { state, held: VecDeque::new() };
    let first = size + 1;
    let joins = (first..first + ROUNDS).map(|number| bench.run(&[register(number)]));
    let joined = median(joins.collect());
    let changes = (1..=ROUNDS).map(|round| bench.run(&[update(round % size + 1, round)]));
    let updated = median(changes.collect());
    let batch: Vec<_> = (first + ROUNDS..first + ROUNDS + 256).map(register).collect();
    let batched = bench.run(&batch);
    println!("| {size} | {joined:.1?} | {updated:.1?} | {batched:.2?} | {started:.2?} |");
}

struct Bench {
    state: State,
    held: VecDeque<Snapshot>,
}

impl Bench {
    /// Carries out one batch; returns how long it took until its snapshot could be published.
    fn run(&mut self, commands: &[Command]) -> Duration {
        let now = at(1);
        let start = cpu_time();
        let mut draft = self.state.draft();
        for command in commands {
            draft.apply(command, &context(now)).expect("no command is refused");
        }
        let batch = draft.batch(now).expect("something to write");
        self.state = draft.finish().0;
        self.held.push_back(self.state.snapshot(now));
        if self.held.len() > HELD {
            self.held.pop_front();
        }
        let elapsed = cpu_time().saturating_sub(start);
        drop(batch);
        elapsed
    }
}

/// A tailnet of nodes that are all called alike and were online, with a reusable key.
fn tailnet(size: u64) -> Loaded {
    let loaded = Loaded::default();
    let mut state = State::new(TailnetId(1), loaded, Arc::default(), Settings::default(), at(0));
    let mut draft = state.draft();
    let key = NewPreauthKey { reusable: true, ..new_preauth_key("key", UserId(1)) };
    for command in [Command::CreateUser(new_user("alice")), Command::CreatePreauthKey(key)] {
        draft.apply(&command, &context(at(0))).expect("a user and a key");
    }
    for number in 1..=size {
        draft.apply(&register(number), &context(at(0))).expect("a node");
        draft.apply(&connect(number), &context(at(0))).expect("its stream");
    }
    (state, _) = draft.finish();
    let Snapshot { tailnet, .. } = state.snapshot(at(0));
    let node = u32::try_from(size + 1).expect("few");
    Loaded {
        tailnet: Tailnet::clone(&tailnet),
        counters: Counters { node, user: 2, preauth_key: 2, ..Counters::default() },
        revision: 1,
    }
}

fn register(number: u64) -> Command {
    Command::Register(Box::new(Registration {
        preauth_key: Some(PreauthKeyId(1)),
        ..registration(number, number)
    }))
}

fn connect(number: u64) -> Command {
    Command::Connect { node: id(number), node_key: node_key(number), disco_key: disco_key(number) }
}

fn update(number: u64, round: u64) -> Command {
    let port = u16::try_from(round % 60_000 + 1).expect("few");
    Command::UpdateNode(Box::new(NodeUpdate {
        node: id(number),
        node_key: node_key(number),
        disco_key: disco_key(number),
        hostinfo: None,
        endpoints: vec![([192, 0, 2, 1], port).into()],
        home_derp: Some(1),
        capability_version: 130,
    }))
}

fn id(number: u64) -> NodeId {
    NodeId(u32::try_from(number).expect("few"))
}

/// Of this thread: the machine may do other things too.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
