//! What a large policy costs: to compile, to keep up event by event, and to ask.
//!
//! `cargo bench -p mesh-policy --bench policy` measures; without `--bench` (as a test) it runs through once, small. Times
//! are CPU time of the one thread, medians of several runs; tailnets and policies are those of
//! `mesh_testkit::large`, the same in every run.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::NodeId;
use mesh_policy::{CompiledPolicy, NodeFacts, NodeOwner, Policy, PolicyDelta};
use mesh_testkit::Naive;
use mesh_testkit::large::{Large, Size};
use rustix::time::{ClockId, clock_gettime};

/// How much is measured.
struct Scale {
    runs: usize,
    /// Divides the numbers of nodes and rules.
    divisor: usize,
}

impl Scale {
    fn size(&self, nodes: usize, rules: usize) -> Size {
        Size::new(nodes / self.divisor, rules / self.divisor)
    }
}

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let scale =
        if is_measured { Scale { runs: 9, divisor: 1 } } else { Scale { runs: 1, divisor: 50 } };
    println!("| what | figure | goal |\n|---|---|---|");
    compile(&scale);
    events(&scale);
    edits(&scale);
    flat(&scale);
    questions(&scale);
    memory(&scale);
    naive(&scale);
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The CPU time of one call, and what it returned.
fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu_time();
    let result = black_box(work());
    (cpu_time().saturating_sub(start), result)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn row(what: &str, figure: impl std::fmt::Display, goal: &str) {
    println!("| {what} | {figure} | {goal} |");
}

fn parsed(large: &Large) -> Arc<Policy> {
    Arc::new(Policy::parse(&large.policy, None).expect("a valid policy"))
}

fn compiled(large: &Large) -> CompiledPolicy {
    CompiledPolicy::compile(parsed(large), large.users.clone(), large.nodes.clone())
}

/// From text to all nodes placed.
fn compile(scale: &Scale) {
    let with_self = Size { with_self: true, ..scale.size(1000, 5000) };
    let with_routers = Size { routers_percent: 5, ..scale.size(2000, 15_000) };
    let own_classes = Size { user_per_node: true, with_self: true, ..scale.size(10_000, 15_000) };
    for (what, size, goal) in [
        ("2000 nodes, 15,000 rules", scale.size(2000, 15_000), "20 ms, of which 8 parsing"),
        ("1000 nodes, 5000 rules, autogroup:self", with_self, "10 ms"),
        ("2000 nodes, 15,000 rules, 5 % subnet routers", with_routers, ""),
        ("10,000 nodes, each of its own user, 15,000 rules", own_classes, ""),
        ("250,000 nodes, 15,000 rules", scale.size(250_000, 15_000), "600 ms"),
    ] {
        let large = Large::new(size);
        let (mut parsing, mut placing) = (Vec::new(), Vec::new());
        for _ in 0..scale.runs {
            let (users, nodes) = (large.users.clone(), large.nodes.clone());
            let (parse, policy) = time(|| parsed(&large));
            let (place, _compiled) = time(|| CompiledPolicy::compile(policy, users, nodes));
            parsing.push(parse);
            placing.push(place);
        }
        let (parse, place) = (median(parsing), median(placing));
        let figure = format!("{:.2?}, of which parsing {parse:.2?}", parse + place);
        row(&format!("text to classes: {what}"), figure, goal);
    }
}

/// One event at a time, on a policy of which a snapshot is held, as the server does.
fn events(scale: &Scale) {
    let large = Large::new(scale.size(2000, 15_000));
    let mut policy = compiled(&large);
    let count = u32::try_from(large.nodes.len()).expect("a small number");
    let newcomers = |like: &dyn Fn(&NodeFacts) -> NodeOwner, from: u32| -> Vec<NodeFacts> {
        let number = |index: usize| u32::try_from(index).expect("a small number");
        let facts = large.nodes.iter().enumerate();
        facts.map(|(index, node)| moved(node, from + number(index), like(node))).collect()
    };
    let each = |policy: &mut CompiledPolicy, nodes: Vec<NodeFacts>, is_shared: bool| {
        let mut delta = PolicyDelta::default();
        let number = u32::try_from(nodes.len()).expect("a small number");
        let (took, ()) = time(|| {
            for node in nodes {
                let snapshot = is_shared.then(|| policy.clone());
                policy.put_node(node, &mut delta);
                drop(snapshot);
            }
        });
        took / number
    };
    let joins = newcomers(&|node| node.owner.clone(), count + 1);
    row("a node joins a class that exists", us(each(&mut policy, joins, false)), "1 us");
    let joins = newcomers(&|node| node.owner.clone(), 2 * count + 1);
    row("the same while a snapshot is held", us(each(&mut policy, joins, true)), "");
    let two_tags = |node: &NodeFacts| {
        let tags = (node.id.0 % 500, node.id.0 * 7 % 499);
        NodeOwner::Tags(Arc::new([
            format!("tag:t{}", tags.0).into(),
            format!("tag:t{}", tags.1).into(),
        ]))
    };
    let joins = newcomers(&two_tags, 3 * count + 1);
    row("a node joins a class of its own", us(each(&mut policy, joins.clone(), false)), "30 us");
    let retagged = joins.into_iter().map(|node| NodeFacts {
        owner: NodeOwner::Tags(Arc::new([format!("tag:t{}", node.id.0 * 11 % 500).into()])),
        ..node
    });
    row("a node gets other tags", us(each(&mut policy, retagged.collect(), false)), "60 us");
    let flapped = large.nodes.iter().map(|node| NodeFacts { online: false, ..node.clone() });
    let mut delta = PolicyDelta::default();
    for node in flapped.clone() {
        policy.put_node(node, &mut delta);
    }
    assert!(delta.is_empty(), "an ordinary node that goes offline changes nothing");
    let member =
        large.policy.replacen("\"group:g7\": [", "\"group:g7\": [\"user299@example.com\", ", 1);
    let edit = || {
        let edited = Arc::new(Policy::parse(&member, None).expect("a valid policy"));
        policy.edited(edited)
    };
    let edits = (0..scale.runs).map(|_| time(edit).0).collect();
    row(
        "a user gains a group: parse, compare, move its nodes",
        format!("{:.2?}", median(edits)),
        "10 ms",
    );
}

/// What another policy costs, and how many nodes may hear of it.
fn edits(scale: &Scale) {
    let large = Large::new(Size { routers_percent: 2, ..scale.size(2000, 15_000) });
    let policy = compiled(&large);
    let rule = |src: &str, dst: &str| {
        let rule = format!("{{\"action\": \"accept\", \"src\": [{src}], \"dst\": [{dst}]}},");
        large.policy.replacen("\"acls\": [\n", &format!("\"acls\": [\n    {rule}\n"), 1)
    };
    let start = large.policy.find("\"tag:t1:").map_or(0, |start| start + 8);
    let mut port = large.policy.clone();
    port.replace_range(start..=start, if port[start..].starts_with('8') { "9" } else { "8" });
    for (what, text, goal) in [
        ("nothing but a comment", format!("// A comment.\n{}", large.policy), ""),
        ("another port in one rule", port, "30 ms"),
        ("one rule more, at the top", rule("\"group:g7\"", "\"tag:t3:22\""), "30 ms"),
        (
            "one rule more, of a source that no rule named",
            rule("\"100.64.0.9\"", "\"tag:t3:22\""),
            "30 ms",
        ),
        ("one rule more, of all users' nodes", rule("\"autogroup:member\"", "\"tag:t3:22\""), ""),
        ("everybody reaches everybody", rule("\"*\"", "\"*:*\""), ""),
        ("another policy altogether", "{}".to_owned(), ""),
    ] {
        let (mut parsing, mut editing) = (Vec::new(), Vec::new());
        let mut named = PolicyDelta::default();
        for _ in 0..scale.runs {
            let (parse, edited) =
                time(|| Arc::new(Policy::parse(&text, None).expect("a valid policy")));
            let (edit, (_, delta)) = time(|| policy.edited(edited));
            parsing.push(parse);
            editing.push(edit);
            named = delta;
        }
        let figure = format!(
            "parse {:.2?}, compile and compare {:.2?}, {} see others, {} filters",
            median(parsing),
            median(editing),
            named.moved.len(),
            named.filters.len()
        );
        row(&format!("an edit: {what}"), figure, goal);
    }
}

/// A join, and a snapshot of it, in tailnets of any size.
fn flat(scale: &Scale) {
    for nodes in [2000, 10_000, 50_000, 100_000, 250_000] {
        let large = Large::new(scale.size(nodes, 15_000));
        let mut policy = compiled(&large);
        let count = u32::try_from(large.nodes.len()).expect("a small number");
        let like = large.nodes.iter().step_by(large.nodes.len().div_ceil(1000));
        let mut snapshot = policy.clone();
        let (mut times, mut filters) = (Vec::new(), 0);
        for (number, node) in (count + 1..).zip(like) {
            let node = moved(node, number, node.owner.clone());
            let mut delta = PolicyDelta::default();
            let (took, ()) = time(|| {
                policy.put_node(node, &mut delta);
                snapshot = policy.clone();
            });
            filters += delta.filters.len();
            times.push(took);
        }
        let most = times.iter().max().copied().unwrap_or_default();
        let joins = times.len() as u64;
        let figure = format!(
            "{}, at most {}, {} filters named",
            us(median(times)),
            us(most),
            filters / joins.max(1)
        );
        row(
            &format!("a node joins {nodes} while a snapshot is held, and is published"),
            figure,
            "",
        );
    }
}

fn moved(node: &NodeFacts, id: u32, owner: NodeOwner) -> NodeFacts {
    let ipv4 = std::net::Ipv4Addr::from_bits(0x6440_0000 + id);
    let ipv6 = std::net::Ipv6Addr::from_bits((0xfd7a_115c_a1e0 << 80) + u128::from(id));
    NodeFacts { id: NodeId(id), owner, ipv4: Some(ipv4), ipv6: Some(ipv6), ..node.clone() }
}

fn us(time: Duration) -> String {
    format!("{:.2} us", time.as_secs_f64() * 1e6)
}

fn questions(scale: &Scale) {
    let large = Large::new(scale.size(2000, 15_000));
    let policy = compiled(&large);
    let mut peers = 0_u32;
    let (walk, ()) = time(|| {
        for node in &large.nodes {
            policy.for_each_peer(node.id, |_| peers += 1);
        }
    });
    let each = walk.as_secs_f64() * 1e9 / f64::from(peers.max(1));
    row("a peer of a node enumerated", format!("{each:.1} ns, {peers} peers"), "10 ns");
    let filters = |policy: &CompiledPolicy| {
        let number = u32::try_from(large.nodes.len()).expect("a small number");
        let (took, ()) = time(|| {
            for node in &large.nodes {
                black_box(policy.filter_chunks(node.id));
            }
        });
        us(took / number)
    };
    row("a node's packet filter, first asked for", filters(&policy), "50 us");
    row("a node's packet filter, asked for again", filters(&policy), "");
}

fn memory(scale: &Scale) {
    let shared = compiled(&Large::new(scale.size(250_000, 15_000)));
    let own = Size { user_per_node: true, with_self: true, ..scale.size(10_000, 15_000) };
    let own = compiled(&Large::new(own));
    for (what, policy, goal) in [
        ("250,000 nodes", shared, "16 MB in 700 classes"),
        ("10,000 nodes, each its own class", own, "64 MB"),
    ] {
        let size = policy.relation_size();
        let figure = format!("{} KB, {} classes", size.bytes / 1000, size.classes);
        row(&format!("the peer relation of {what}"), figure, goal);
    }
}

/// The naive evaluator, at a size that it can do, beside the engine at the same.
fn naive(scale: &Scale) {
    let large = Large::new(scale.size(100, 500));
    let policy = parsed(&large);
    let elected = mesh_testkit::elect(&large.nodes, &std::collections::BTreeMap::new());
    let (slow, _views) = time(|| {
        let naive = Naive::new(&policy, &large.users, &large.nodes, &elected);
        large.nodes.iter().map(|node| naive.view(node.id)).collect::<Vec<_>>()
    });
    let (fast, _views) = time(|| {
        let engine =
            CompiledPolicy::compile(policy.clone(), large.users.clone(), large.nodes.clone());
        large.nodes.iter().map(|node| engine.view(node.id)).collect::<Vec<_>>()
    });
    let figure = format!("{slow:.2?} naive, {fast:.2?} engine");
    row("every view of 100 nodes, 500 rules", figure, "");
}
