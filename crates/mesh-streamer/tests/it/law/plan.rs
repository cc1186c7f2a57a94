//! What happens in a simulation, step by step, drawn from a seed.

use mesh_streamer::Compression;
use mesh_testkit::random::Random;

use super::change::Change;

/// Most nodes at the start, but for every tenth tailnet.
const NODES_MAX: usize = 8;

/// Most nodes at the start of a larger tailnet.
const LARGE_NODES_MAX: usize = 40;

/// A simulation from beginning to end.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Nodes that are there at the start, each with an open stream.
    pub(super) nodes: usize,
    /// Whether people's keys run out after a while.
    pub(super) keys_expire: bool,
    /// Seed of the first policy; without one everybody sees everybody.
    pub(super) policy: Option<u64>,
    pub(super) steps: Vec<Step>,
}

/// One thing that happens. Nodes and clients are picked by a number among those that are there.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A change is asked for; nobody waits until it is done.
    Change(Change),
    /// Time passes, in which prompt clients read.
    Pass { ms: u64 },
    /// A client reads for a while, prompt or not.
    Read { pick: usize, ms: u64 },
    /// A client opens a stream, while an earlier one of the node may still be open.
    Open { pick: usize, compression: Compression, is_prompt: bool },
    /// A client's connection breaks.
    HangUp { pick: usize },
    /// Relays or DNS change.
    Context(usize),
    /// So many changes, each so long after the one before.
    Burst { pick: usize, changes: u16, gap_ms: u64 },
    /// Commits take so long; or fail.
    Database { commit_ms: u64, is_down: bool },
    /// Everything calms down, everybody reads, and everybody is checked.
    CatchUp,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let (most, steps) =
            if random.chance(10) { (LARGE_NODES_MAX, 60) } else { (NODES_MAX, 120) };
        let nodes = 2 + random.below(most - 1);
        let mut first: Vec<Step> =
            (0..nodes).map(|pick| Step::Change(Change::update(pick, random))).collect();
        let approved = (0..nodes).filter(|pick| pick % 3 == 0);
        first.extend(approved.map(|pick| Step::Change(Change::ApproveRoutes { pick, routes: 63 })));
        Self {
            nodes,
            keys_expire: random.chance(40),
            policy: random.chance(70).then(|| random.below(1 << 30) as u64),
            steps: first
                .into_iter()
                .chain((0..random.below(steps)).map(|_| Step::draw(random)))
                .collect(),
        }
    }

    /// The same with some steps less.
    pub(super) fn without(&self, at: usize, steps: usize) -> Self {
        let mut shorter = self.clone();
        shorter.steps.drain(at..(at + steps).min(self.steps.len()));
        shorter
    }
}

impl Step {
    fn draw(random: &mut Random) -> Self {
        let pick = random.below(64);
        match random.below(100) {
            0..45 => Self::Change(Change::draw(random)),
            45..65 => Self::Pass { ms: some_time(random) },
            65..73 => Self::Read { pick, ms: some_time(random) },
            73..83 => Self::Open {
                pick,
                compression: random.pick(&[Compression::None, Compression::Zstd]),
                is_prompt: random.chance(60),
            },
            83..88 => Self::HangUp { pick },
            88..92 => Self::Context(random.below(4)),
            92..94 => Self::Burst {
                pick,
                changes: if random.chance(2) { 4_200 } else { random.pick(&[3, 10, 40, 300]) },
                gap_ms: random.pick(&[0, 0, 1, 30, 300]),
            },
            94..97 => Self::Database {
                commit_ms: random.pick(&[0, 0, 1, 7, 400]),
                is_down: random.chance(10),
            },
            _ => Self::CatchUp,
        }
    }
}

/// From no time, over the windows in which changes are held back, to longer than grace periods and keys last.
fn some_time(random: &mut Random) -> u64 {
    let longest = random.pick(&[1, 1, 5, 30, 30, 100, 300, 300, 1_000, 5_000, 12_000, 70_000]);
    random.below(longest) as u64
}
