use std::collections::HashSet;

use super::*;

fn machines(mut population: Population, count: usize) -> Vec<Machine> {
    (0..count).map(|_| population.machine()).collect()
}

fn check_owners(
    users: usize,
    tags: usize,
    tagged_percent: usize,
    allowed: std::ops::RangeInclusive<u64>,
) {
    let keys: Vec<_> = machines(Population::new(1, users, tags, tagged_percent), 200)
        .iter()
        .filter_map(|machine| machine.registration.preauth_key)
        .collect();
    assert_eq!(keys.len(), 200);
    assert!(keys.iter().all(|key| allowed.contains(&key.0)), "{keys:?}");
}

#[test]
fn a_seed_makes_the_same_machines_every_time_and_another_makes_others() {
    let told = |seed| format!("{:?}", machines(Population::new(seed, 3, 3, 30), 20));
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}

#[test]
fn keys_and_hostnames_are_distinct() {
    let machines = machines(Population::new(1, 2, 2, 50), 500);
    let keys: HashSet<_> = machines
        .iter()
        .flat_map(|Machine { registration, disco_key, .. }| {
            let node = registration.node_key.to_string();
            [node, registration.machine_key.to_string(), disco_key.to_string()]
        })
        .collect();
    assert_eq!(keys.len(), 1500);
    let names: HashSet<_> =
        machines.iter().map(|machine| &machine.registration.hostinfo.hostname).collect();
    assert_eq!(names.len(), 500);
}

#[test]
fn owners_are_those_that_there_are() {
    check_owners(3, 2, 50, 1..=5);
    check_owners(3, 2, 0, 1..=3);
    check_owners(3, 2, 100, 4..=5);
    check_owners(0, 2, 0, 1..=2);
    check_owners(1, 0, 100, 1..=1);
    check_owners(0, 0, 30, 1..=1);
}
