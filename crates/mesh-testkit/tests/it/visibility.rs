//! The quick way to who sees whom is the slow one's equal.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::NodeId;
use mesh_policy::Policy;
use mesh_testkit::Naive;
use mesh_testkit::random::{Random, World};

/// Random tailnets that are tried.
const CASES: u64 = 256;

#[test]
fn visibility_is_that_of_the_views() {
    (0..CASES).for_each(check);
}

fn check(seed: u64) {
    let World { policy, users, nodes, .. } = World::new(&mut Random::new(seed));
    let policy = Policy::parse(&policy.to_string(), None)
        .unwrap_or_else(|problems| panic!("seed {seed}: {problems}"));
    let incumbents = BTreeMap::new();
    let views = Naive::new(&policy, &users, &nodes, &incumbents).views();
    let slow: BTreeMap<NodeId, BTreeSet<NodeId>> =
        views.into_iter().map(|(id, view)| (id, view.peers.into_keys().collect())).collect();
    assert_eq!(Naive::visibility(&policy, &users, &nodes, &incumbents), slow, "seed {seed}");
}
