//! What it costs to find out what all viewers are to be told, under a large policy.
//!
//! `cargo bench -p mesh-netmap --bench tell` measures; without `--bench` (as a test) it runs through once, small. Times
//! are CPU time of the one thread, for all viewers together; encoding is not among them.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use mesh_keys::{DiscoPublic, NetworkLockPublic};
use mesh_model::{
    Hostinfo, Node, NodeId, Owner, RegisterMethod, SessionId, Tailnet, TailnetId, User,
};
use mesh_netmap::{Comparisons, Differences, MapContext, Step, Told, full};
use mesh_policy::{NodeFacts, NodeOwner, Policy, UserFacts};
use mesh_state::{ChangeSet, Command, Loaded, NewPolicy, Settings, Snapshot, State};
use mesh_testkit::large::{Large, Size};
use mesh_testkit::{at, disco_key, machine_key, node_key};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let divisor = if is_measured { 1 } else { 50 };
    println!("| what | viewers concerned | CPU time of all |\n|---|---|---|");
    let size = Size { routers_percent: 2, ..Size::new(2000 / divisor, 15_000 / divisor) };
    for (name, large) in [
        ("2000 nodes, 15,000 rules", Large::new(size)),
        ("the same with autogroup:self", Large::new(Size { with_self: true, ..size })),
        ("2000 nodes, everybody sees everybody", without_policy(Large::new(size))),
    ] {
        println!("| **{name}** | | |");
        measure(&large);
    }
}

fn without_policy(large: Large) -> Large {
    Large { policy: "{}".to_owned(), ..large }
}

fn measure(large: &Large) {
    let mut house = House::new(large);
    let context = MapContext::default();
    let (time, peers) = house.full_maps(&context);
    println!("| all full maps, of {peers} peers in all | {} | {time:.2?} |", large.nodes.len());
    let last = NodeId(u32::try_from(large.nodes.len()).expect("a small number"));
    let port = large.policy.find("\"tag:t1:").map_or(0, |start| start + 8);
    let events = [
        ("a node goes offline", Command::Disconnect { node: NodeId(7), session: SessionId(0) }),
        ("a node joins", connect(last)),
        ("a node is tagged", tag(NodeId(9), "tag:t3")),
        (
            "a user comes into a group",
            set_policy(&large.policy.replacen(": [", r#": ["user7@example.com", "#, 1)),
        ),
        ("a rule has another port", set_policy(&with_digit(&large.policy, port))),
    ];
    for (name, command) in events {
        let (concerned, time) = house.tell_all(&command, &context);
        println!("| {name} | {concerned} | {time:.2?} |");
    }
}

/// The text with another digit at some place, if there is one.
fn with_digit(text: &str, at: usize) -> String {
    let mut text = text.to_owned();
    if text[at..].starts_with(|first: char| first.is_ascii_digit()) {
        text.replace_range(at..=at, if text[at..].starts_with('8') { "9" } else { "8" });
    }
    text
}

struct House {
    state: State,
    snapshot: Snapshot,
}

impl House {
    /// A tailnet of which all nodes are online but the last, which is not announced yet.
    fn new(large: &Large) -> Self {
        let mut tailnet = Tailnet::default();
        large.users.iter().for_each(|facts| tailnet.put_user(Arc::new(user(facts))));
        for facts in &large.nodes {
            tailnet.put_node(Arc::new(node(facts, facts.id.0 as usize != large.nodes.len())));
        }
        let loaded = Loaded { tailnet, ..Loaded::default() };
        let policy = Arc::new(parsed(&large.policy));
        let state = State::new(TailnetId(1), loaded, policy, Settings::default(), at(0));
        let snapshot = state.snapshot(at(0));
        Self { state, snapshot }
    }

    fn full_maps(&self, context: &MapContext) -> (Duration, usize) {
        time(|| {
            let of = |node: &Arc<Node>| full(&self.snapshot, node.id, context, at(0));
            let maps = self.snapshot.tailnet.nodes().filter_map(of);
            maps.map(|map| black_box(map).peers.len()).sum()
        })
    }

    /// Carries out a command, and finds out what every viewer is told of it. How many are told anything, and the time.
    fn tell_all(&mut self, command: &Command, context: &MapContext) -> (usize, Duration) {
        let mut draft = self.state.draft();
        draft.apply(command, &mesh_testkit::context(at(1))).expect("it is carried out");
        let (state, changes) = draft.finish();
        let to = state.snapshot(at(1));
        let from = std::mem::replace(&mut self.snapshot, to);
        self.state = state;
        let (time, concerned) = time(|| self.tell(&from, &changes, context));
        (concerned, time)
    }

    fn tell(&self, from: &Snapshot, changes: &ChangeSet, context: &MapContext) -> usize {
        let step = Step { from, to: &self.snapshot, changes, context };
        let (mut made, mut concerned) = (HashMap::new(), 0);
        let known = Comparisons::default();
        for viewer in from.tailnet.nodes().map(|node| node.id) {
            let Told::Differences(differences) = black_box(step.tell(viewer)) else { continue };
            let hears = differences.peers.is_some_and(|group| {
                let delta = made.entry(group).or_insert_with(|| step.peers(viewer, &known));
                !delta.is_empty_for(viewer)
            });
            let own = Differences { peers: None, ..differences };
            concerned += usize::from(hears || own != Differences::default());
        }
        concerned
    }
}

fn connect(node: NodeId) -> Command {
    let number = u64::from(node.0);
    Command::Connect { node, node_key: node_key(number), disco_key: disco_key(number) }
}

fn tag(node: NodeId, tag: &str) -> Command {
    Command::TagNode { node, tags: vec![tag.parse().expect("a tag")] }
}

fn set_policy(text: &str) -> Command {
    Command::SetPolicy(Box::new(NewPolicy {
        text: text.to_owned(),
        policy: Arc::new(parsed(text)),
        created_by: "a bench".to_owned(),
        replaces: None,
    }))
}

fn parsed(text: &str) -> Policy {
    Policy::parse(text, None).expect("a valid policy")
}

fn user(facts: &UserFacts) -> User {
    User {
        id: facts.id,
        name: facts.name.to_string(),
        display_name: String::new(),
        email: facts.email.to_string(),
        profile_pic_url: String::new(),
        provider: String::new(),
        provider_id: String::new(),
        created_at: at(0),
    }
}

fn node(facts: &NodeFacts, is_announced: bool) -> Node {
    let number = u64::from(facts.id.0);
    let routes = facts.active_routes.to_vec();
    let tag = |tag: &Arc<str>| tag.parse().expect("a tag");
    Node {
        id: facts.id,
        machine_key: machine_key(number),
        node_key: node_key(number),
        previous_node_key: None,
        disco_key: if is_announced { disco_key(number) } else { DiscoPublic::default() },
        network_lock_key: NetworkLockPublic::default(),
        hostinfo: Hostinfo {
            hostname: format!("node-{number}"),
            os: "linux".to_owned(),
            routable_ips: routes.clone(),
            ..Hostinfo::default()
        },
        given_name: format!("node-{number}"),
        name_is_chosen: false,
        ipv4: facts.ipv4,
        ipv6: facts.ipv6,
        owner: match &facts.owner {
            NodeOwner::User(user) => Owner::User(*user),
            NodeOwner::Tags(tags) => Owner::Tags(tags.iter().map(tag).collect()),
        },
        register_method: RegisterMethod::AuthKey,
        preauth_key: None,
        ephemeral: false,
        capability_version: 130,
        endpoints: vec![([192, 0, 2, 1], 41_641).into()],
        home_derp: Some(1),
        approved_routes: routes,
        created_at: at(0),
        expires_at: None,
        last_seen_at: None,
        session: None,
    }
}

/// The CPU time of one call, and what it returned.
fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu_time();
    let result = black_box(work());
    (cpu_time().saturating_sub(start), result)
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
