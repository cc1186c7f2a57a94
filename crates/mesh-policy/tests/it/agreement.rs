//! The engine says what the naive evaluator says: for fresh tailnets, after any events, and as its deltas tell it.
//!
//! Everything follows from a seed. A failure prints its seed; it goes to [`SEEDS`] before its cause is mended.
//! `PROPTEST_CASES` says how many seeds are tried.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::{CompiledPolicy, FilterChunks, FilterRule, NodeView, Policy, PolicyDelta};
use mesh_testkit::random::{Event, Random, World};
use mesh_testkit::seeds::cases;
use mesh_testkit::{Naive, elect};

use crate::compare::first_difference;

/// Seeds that failed once.
const SEEDS: &[u64] = &[
    3, 15, 26, 47, 56, 137, 162, 188, 204, 223, 258, 295, 310, 361, 381, 404, 490, 580, 587, 741,
    897, 1160, 3201, 3872, 6144, 12542, 15340,
];

/// Events of a sequence.
const EVENTS: usize = 50;

/// A report of more failures than these is no easier to read.
const REPORTED_MAX: usize = 3;

#[test]
fn engine_agrees_with_the_naive_evaluator() {
    check(cases(256), fresh);
}

#[test]
fn engine_agrees_after_any_events() {
    check(cases(256) / 8, |seed| events(seed, agree_after));
}

#[test]
fn engine_after_any_events_is_a_fresh_one() {
    check(cases(256) / 4, |seed| events(seed, is_fresh));
}

#[test]
fn deltas_name_all_that_is_different() {
    check(cases(256) / 4, |seed| events(seed, folds));
}

#[test]
fn edits_of_the_policy_name_all_that_is_different() {
    check(cases(256) / 4, |seed| happenings(seed, edit, folds));
}

/// Tries seeds, those that failed once first.
fn check(count: u64, property: impl Fn(u64) -> Result<(), String>) {
    let mut report = String::new();
    let mut failed = Vec::new();
    for seed in SEEDS.iter().copied().chain(0..count) {
        if let Err(failure) = property(seed) {
            if failed.len() < REPORTED_MAX {
                let _ = writeln!(report, "seed {seed}: {failure}");
            }
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}\n{report}", failed.len());
}

fn fresh(seed: u64) -> Result<(), String> {
    let mut world = World::new(&mut Random::new(seed));
    let mut outcome = judge(&world);
    while outcome.is_err() {
        let Some((smaller, failure)) = smaller_failure(&world) else { break };
        (world, outcome) = (smaller, failure);
    }
    outcome
}

/// A tailnet with one thing less that fails too.
fn smaller_failure(world: &World) -> Option<(World, Result<(), String>)> {
    let failing =
        |smaller: World| Some(judge(&smaller)).filter(Result::is_err).map(|it| (smaller, it));
    world.smaller().into_iter().find_map(failing)
}

fn judge(world: &World) -> Result<(), String> {
    let policy = parse(&world.policy_text())?;
    let engine = compile(&policy, world);
    let primaries = BTreeMap::new();
    let naive = Naive::new(&policy, &world.users, &world.nodes, &primaries);
    let places = |failure| format!("{failure}\n{}", description(world));
    agree(&engine, &naive, world).map_err(places)?;
    let passed = engine.run_tests().passed();
    if passed != naive.passes_tests() {
        return Err(places(format!("tests: the engine says {passed}\n{:#?}", engine.run_tests())));
    }
    Ok(())
}

/// Every view of the engine is that of the naive evaluator.
fn agree(engine: &CompiledPolicy, naive: &Naive<'_>, world: &World) -> Result<(), String> {
    for node in &world.nodes {
        let (ours, theirs) = (engine.view(node.id), naive.view(node.id));
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return Err(format!("node {:?} is unknown", node.id));
        };
        if let Some(difference) = first_difference(&ours, &theirs) {
            return Err(format!("node {:?}: {difference}", node.id));
        }
        let offered = offers();
        let (ours, theirs) =
            (engine.auto_approved(node, &offered), naive.auto_approved(node, &offered));
        if ours != theirs {
            return Err(format!(
                "node {:?} is approved\n  engine {ours:?}\n  judge  {theirs:?}",
                node.id
            ));
        }
    }
    Ok(())
}

/// Routes that a node might offer.
fn offers() -> Vec<IpNet> {
    let offers = [
        "0.0.0.0/0",
        "10.1.2.0/24",
        "10.2.0.0/16",
        "100.64.0.0/29",
        "192.168.7.128/25",
        "::/0",
        "fd00:1::/64",
    ];
    offers.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// What an event left behind.
struct Step<'a> {
    earlier: &'a CompiledPolicy,
    engine: &'a CompiledPolicy,
    delta: &'a PolicyDelta,
    primaries: &'a BTreeMap<IpNet, NodeId>,
    world: &'a World,
}

/// Lets things happen to a tailnet and its engine, and asks a property after each.
fn events(seed: u64, property: fn(&Step<'_>) -> Result<(), String>) -> Result<(), String> {
    happenings(seed, World::happen, property)
}

/// Edits a policy.
fn edit(world: &mut World, random: &mut Random) -> Event {
    world.policy.edit(random);
    Event::Edit(world.policy_text())
}

fn happenings(
    seed: u64,
    happen: fn(&mut World, &mut Random) -> Event,
    property: fn(&Step<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let mut world = World::new(random);
    let mut engine = compile(&parse(&world.policy_text())?, &world);
    let mut primaries = elect(&world.nodes, &BTreeMap::new());
    let mut history = Vec::new();
    for _ in 0..EVENTS {
        let event = happen(&mut world, random);
        let earlier = engine.clone();
        let delta = apply(&mut engine, &event)?;
        history.push(format!("{event:?}"));
        primaries = elect(&world.nodes, &primaries);
        let step = Step {
            earlier: &earlier,
            engine: &engine,
            delta: &delta,
            primaries: &primaries,
            world: &world,
        };
        property(&step).map_err(|failure| {
            let (count, last) = (history.len(), history[history.len() - 1].clone());
            let happened = history.join("\n    ");
            let world = description(&world);
            format!("after event {count}: {failure}\n  {last}\n  {delta:?}\n{world}\n  after\n    {happened}")
        })?;
    }
    Ok(())
}

fn agree_after(step: &Step<'_>) -> Result<(), String> {
    let policy = step.engine.policy().clone();
    let world = step.world;
    let naive = Naive::new(&policy, &world.users, &world.nodes, step.primaries);
    agree(step.engine, &naive, world)
}

/// The engine says what one says that is compiled at once. Such a one knows no incumbents, so only where all primaries
/// are the first registered.
fn is_fresh(step: &Step<'_>) -> Result<(), String> {
    if *step.primaries != elect(&step.world.nodes, &BTreeMap::new()) {
        return Ok(());
    }
    let fresh = compile(step.engine.policy(), step.world);
    each_view(step, |id, view| {
        let other = fresh.view(id).and_then(|fresh| first_difference(view, &fresh));
        other.or_else(|| chunks_make_the_filter(step.engine, id, view))
    })
}

/// What was so before the event, with what the delta names read again, is what is so. Deltas do not name the order of
/// filter rules, which means nothing to a node; their chunks are the same to the letter.
fn folds(step: &Step<'_>) -> Result<(), String> {
    let Step { earlier, engine, delta, .. } = step;
    each_view(step, |id, view| {
        if earlier.node(id).is_some() {
            let mut chunks = earlier.filter_chunks(id);
            if delta.filters.contains(id.0) {
                take_in(&mut chunks, earlier.filter_delta(engine, id));
            }
            let after = engine.filter_chunks(id);
            if chunks != after {
                return Some(format!("chunks are told as {chunks:?}, are {after:?}"));
            }
        }
        first_difference(&without_order(told(step, id, view)), &without_order(view.clone()))
    })?;
    keeps_classes(step)
}

/// Sets the parts of a packet filter that are different.
fn take_in(chunks: &mut FilterChunks, delta: BTreeMap<String, Option<Vec<FilterRule>>>) {
    for (name, rules) in delta {
        match rules {
            Some(rules) => chunks.insert(name, rules),
            None => chunks.remove(&name),
        };
    }
}

/// Nodes that did not move are in the class they were in, and nodes of a class see alike.
fn keeps_classes(step: &Step<'_>) -> Result<(), String> {
    let Step { earlier, engine, delta, world, .. } = step;
    let mut lasting = BTreeMap::new();
    for node in world.nodes.iter().filter(|node| !delta.moved.contains(node.id.0)) {
        let (before, after) = (earlier.class_of(node.id), engine.class_of(node.id));
        if before != after {
            return Err(format!("node {:?} was in {before:?}, is in {after:?}", node.id));
        }
        let peers = engine.peers_of_class(node.id) - &delta.moved;
        if *lasting.entry(after).or_insert_with(|| peers.clone()) != peers {
            return Err(format!("class {after:?} is two"));
        }
    }
    Ok(())
}

fn without_order(mut view: NodeView) -> NodeView {
    view.packet_filter.sort_by_key(|rule| format!("{rule:?}"));
    view
}

/// The chunks of a packet filter, merged, are the packet filter.
fn chunks_make_the_filter(engine: &CompiledPolicy, id: NodeId, view: &NodeView) -> Option<String> {
    let mut merged: Vec<FilterRule> = Vec::new();
    for rule in engine.filter_chunks(id).into_values().flatten() {
        let same = merged.iter_mut().find(|known| {
            known.cap_grant.is_empty()
                && rule.cap_grant.is_empty()
                && (&known.src_ips, known.ip_proto) == (&rule.src_ips, rule.ip_proto)
        });
        match same {
            Some(known) => known.dst_ports.extend(rule.dst_ports),
            None => merged.push(rule),
        }
    }
    let chunks = NodeView { packet_filter: merged, ..view.clone() };
    first_difference(&sorted(chunks), &sorted(view.clone()))
}

/// As [`without_order`], and in the rules too.
fn sorted(mut view: NodeView) -> NodeView {
    view.packet_filter.iter_mut().for_each(|rule| rule.dst_ports.sort());
    without_order(view)
}

fn each_view(
    step: &Step<'_>,
    differ: impl Fn(NodeId, &NodeView) -> Option<String>,
) -> Result<(), String> {
    for node in &step.world.nodes {
        let view = step.engine.view(node.id).ok_or("a node is unknown")?;
        if let Some(difference) = differ(node.id, &view) {
            return Err(format!("node {:?}: {difference}", node.id));
        }
    }
    Ok(())
}

/// The earlier view of a node with what the delta names read from the later one.
fn told(step: &Step<'_>, id: NodeId, later: &NodeView) -> NodeView {
    let Step { earlier, delta, .. } = *step;
    let Some(mut told) = earlier.view(id) else { return later.clone() };
    let has_moved = |id: NodeId| delta.moved.contains(id.0);
    let is_router = |id: NodeId| delta.routers.contains(id.0);
    if delta.filters.contains(id.0) {
        told.packet_filter.clone_from(&later.packet_filter);
    }
    if delta.ssh.contains(id.0) {
        told.ssh.clone_from(&later.ssh);
    }
    if has_moved(id) || delta.attributes.contains(id.0) {
        told.attributes.clone_from(&later.attributes);
    }
    if has_moved(id) {
        told.addresses.clone_from(&later.addresses);
    }
    if has_moved(id) || is_router(id) {
        told.primary_routes.clone_from(&later.primary_routes);
    }
    told.peers.retain(|peer, _| !has_moved(id) && !has_moved(*peer));
    for (peer, view) in &later.peers {
        if has_moved(id) || has_moved(*peer) {
            told.peers.insert(*peer, view.clone());
        } else if let Some(told) = told.peers.get_mut(peer).filter(|_| is_router(*peer)) {
            told.routes.clone_from(&view.routes);
        }
    }
    told
}

fn apply(engine: &mut CompiledPolicy, event: &Event) -> Result<PolicyDelta, String> {
    let mut delta = PolicyDelta::default();
    match event {
        Event::Join(node)
        | Event::Retag(node)
        | Event::Reroute(node)
        | Event::Change(node)
        | Event::Connect(node) => engine.put_node(node.clone(), &mut delta),
        Event::Leave(id) => engine.remove_node(*id, &mut delta),
        Event::User(user) => engine.put_user(user.clone(), &mut delta),
        Event::DeleteUser(id) => engine.remove_user(*id, &mut delta),
        Event::Edit(text) => (*engine, delta) = engine.edited(parse(text)?),
    }
    Ok(delta)
}

fn parse(text: &str) -> Result<Arc<Policy>, String> {
    Policy::parse(text, None).map(Arc::new).map_err(|problems| format!("{problems}\n{text}"))
}

fn compile(policy: &Arc<Policy>, world: &World) -> CompiledPolicy {
    CompiledPolicy::compile(policy.clone(), world.users.clone(), world.nodes.clone())
}

fn description(world: &World) -> String {
    let mut text = world.policy_text();
    for user in &world.users {
        let _ = write!(text, "\n  {user:?}");
    }
    for node in &world.nodes {
        let _ = write!(text, "\n  {node:?}");
    }
    text
}
