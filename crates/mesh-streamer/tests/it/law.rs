//! The law, by simulation: whatever happens, and however clients read, what they were told adds up to the full netmap.
//!
//! Everything follows from a seed, on a virtual clock. A failure prints its seed and the shortest plan that still
//! fails; the seed goes to [`SEEDS`] before its cause is mended. `PROPTEST_CASES` says how many seeds are tried.

mod change;
mod client;
mod clock;
mod database;
mod plan;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mesh_testkit::seeds;
use tokio::runtime::Builder;

use plan::{Plan, Step};
use world::{Tally, World};

/// Seeds that failed once, beyond those that are always tried.
const SEEDS: &[u64] = &[49];

/// How many seeds are tried by default: the most that take a few seconds.
const CASES: u64 = 48;

/// How many shorter plans are tried at most before a failure is reported.
const SHORTER_PLANS_MAX: usize = 400;

#[test]
fn what_clients_were_told_adds_up_to_the_full_netmap() {
    let (mut all, mut failures) = (Tally::default(), Vec::new());
    for seed in seeds::seeds(CASES, SEEDS) {
        match play(&Plan::new(seed)) {
            Ok(tally) => all.add(tally),
            Err(failure) => {
                eprintln!("seed {seed} fails: {failure}");
                if failures.is_empty() {
                    eprintln!("{}", shortest(Plan::new(seed)));
                }
                failures.push(seed);
            }
        }
    }
    println!("{all:#?}");
    assert!(failures.is_empty(), "seeds {failures:?}");
}

/// Plays a plan in a world of its own.
fn play(plan: &Plan) -> Result<Tally, String> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(plan).await;
            for (number, step) in plan.steps.iter().enumerate() {
                world.take(step).await.map_err(|failure| format!("step {number}: {failure}"))?;
            }
            world.take(&Step::CatchUp).await?;
            world.end().await
        })
    }));
    runtime.shutdown_background();
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

/// The failing plan with as few steps and nodes as can easily be found, and its failure.
fn shortest(mut plan: Plan) -> String {
    let mut failure = String::new();
    let (mut size, mut tries) = (plan.steps.len().div_ceil(2), 0);
    while size > 0 {
        let mut at = 0;
        while at < plan.steps.len() && tries < SHORTER_PLANS_MAX {
            tries += 1;
            let shorter = plan.without(at, size);
            match play(&shorter) {
                Err(found) => (plan, failure) = (shorter, found),
                Ok(_) => at += size,
            }
        }
        size /= 2;
    }
    for nodes in 1..plan.nodes {
        let smaller = Plan { nodes, ..plan.clone() };
        if let Err(found) = play(&smaller) {
            (plan, failure) = (smaller, found);
            break;
        }
    }
    format!("{plan:#?}\n{failure}")
}
