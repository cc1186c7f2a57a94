//! The law, by simulation: random commands, and viewers that wake when they like.

use std::sync::Arc;

use mesh_model::{Node, PreauthKeyId, UserId};
use mesh_netmap::MapContext;
use mesh_state::{Command, NewUser, Registration, Settings};
use mesh_testkit::random::{Random, Sections};
use mesh_testkit::{at, commands, new_user, node_key, registration};
use proptest::prelude::*;

use crate::house::{ALICES, BOBS, EPHEMERAL, House, LIFETIME, TAGGED, context_with};
use crate::viewer::Viewer;

/// Something that happens, by a number that picks the node among those that are there.
#[derive(Debug, Clone)]
enum Event {
    Register { machine: u64, key: u64, preauth_key: u64, kind: u8 },
    Open(usize),
    Close(usize),
    Update { pick: usize, what: [u8; 6], offered: u8 },
    Expire { pick: usize, at: Option<i64> },
    Rename { pick: usize, name: String },
    Tag { pick: usize, tags: u8 },
    ApproveRoutes { pick: usize, routes: u8 },
    Delete(usize),
    RenameUser { user: u64, name: String },
    SetPolicy(u64),
    EditPolicy(u64),
}

/// What a moment brings: a batch of events, then the viewers that wake, by bits.
#[derive(Debug, Clone)]
struct Moment {
    pause: i64,
    events: Vec<Event>,
    wake: u16,
    /// Those among them whose cursor is lost.
    lost: u16,
    /// The context from here on.
    context: usize,
}

fn event() -> impl Strategy<Value = Event> {
    let pick = || 0..6_usize;
    let name = || "[a-c]{1,2}".prop_map(String::from);
    prop_oneof![
        4 => (1..6_u64, 1..12_u64, 1..5_u64, 0..8_u8).prop_map(|(machine, key, preauth_key, kind)| {
            Event::Register { machine, key, preauth_key, kind }
        }),
        5 => pick().prop_map(Event::Open),
        5 => pick().prop_map(Event::Close),
        9 => (pick(), prop::array::uniform6(0..3_u8), 0..64_u8)
            .prop_map(|(pick, what, offered)| Event::Update { pick, what, offered }),
        1 => (pick(), prop::option::of(-20..60_i64)).prop_map(|(pick, at)| Event::Expire { pick, at }),
        1 => (pick(), name()).prop_map(|(pick, name)| Event::Rename { pick, name }),
        2 => (pick(), any::<u8>()).prop_map(|(pick, tags)| Event::Tag { pick, tags }),
        3 => (pick(), 0..64_u8).prop_map(|(pick, routes)| Event::ApproveRoutes { pick, routes }),
        1 => pick().prop_map(Event::Delete),
        1 => (1..3_u64, name()).prop_map(|(user, name)| Event::RenameUser { user, name }),
        1 => any::<u64>().prop_map(Event::SetPolicy),
        3 => any::<u64>().prop_map(Event::EditPolicy),
    ]
}

fn moment() -> impl Strategy<Value = Moment> {
    let rarely = prop_oneof![9 => Just(0_u16), 1 => any::<u16>()];
    let context = prop_oneof![14 => Just(0_usize), 1 => 1..4_usize];
    (1..15_i64, prop::collection::vec(event(), 0..4), any::<u16>(), rarely, context).prop_map(
        |(pause, events, wake, lost, context)| Moment { pause, events, wake, lost, context },
    )
}

/// The command of an event; none if it needs a node and there is none, or edits a policy and there is none.
fn command(house: &House, sections: &mut Option<Sections>, event: &Event) -> Option<Command> {
    let nodes: Vec<&Arc<Node>> = house.newest().tailnet.nodes().collect();
    let node = |pick: &usize| nodes.get(pick % nodes.len().max(1)).copied();
    Some(match event {
        Event::Register { machine, key, preauth_key, kind } => {
            register(*machine, *key, *preauth_key, *kind)
        }
        Event::Open(pick) => house.connecting(node(pick)?.id),
        Event::Close(pick) => {
            let node = node(pick)?;
            Command::Disconnect { node: node.id, session: node.session? }
        }
        Event::Update { pick, what, offered } => commands::update(node(pick)?, *what, *offered),
        Event::Expire { pick, at: expires } => Command::SetNodeExpiry {
            node: node(pick)?.id,
            expires_at: expires.map(|expires| at(house.now + expires)),
        },
        Event::Rename { pick, name } => {
            Command::RenameNode { node: node(pick)?.id, name: name.clone() }
        }
        Event::Tag { pick, tags } => {
            Command::TagNode { node: node(pick)?.id, tags: commands::tags(*tags) }
        }
        Event::ApproveRoutes { pick, routes } => {
            Command::ApproveRoutes { node: node(pick)?.id, routes: commands::routes(*routes) }
        }
        Event::Delete(pick) => Command::DeleteNode { node: node(pick)?.id },
        Event::RenameUser { user, name } => {
            Command::RenameUser { user: UserId(*user), name: name.clone() }
        }
        Event::SetPolicy(seed) => {
            *sections = Some(Sections::new(&mut Random::new(*seed)));
            commands::random_policy(sections.as_ref()?)
        }
        Event::EditPolicy(seed) => {
            sections.as_mut()?.edit(&mut Random::new(*seed));
            commands::random_policy(sections.as_ref()?)
        }
    })
}

/// A machine comes, comes back, rotates its key, asks for a shorter life, or logs out.
fn register(machine: u64, key: u64, preauth_key: u64, kind: u8) -> Command {
    Command::Register(Box::new(Registration {
        preauth_key: Some(PreauthKeyId(preauth_key)),
        expiry: match kind {
            0 => Some(at(-1)),
            1 => Some(at(40)),
            _ => None,
        },
        old_node_key: (kind == 2).then(|| node_key(key - 1)),
        ..registration(machine, key)
    }))
}

/// Users whom random policies name.
fn users() -> [NewUser; 2] {
    ["alice", "bob"].map(|name| NewUser { email: format!("{name}@example.com"), ..new_user(name) })
}

fn contexts() -> [Arc<MapContext>; 4] {
    let mut with_dns = MapContext::clone(&context_with([1, 2]));
    with_dns.dns.domains = vec!["tail.example".to_owned()];
    [context_with([1, 2]), context_with([2]), context_with([]), Arc::new(with_dns)]
}

proptest! {
    #[test]
    fn what_a_viewer_was_told_adds_up_to_the_full_netmap(
        moments in prop::collection::vec(moment(), 1..40),
        expiry: bool,
        first_policy in prop::option::of(any::<u64>()),
    ) {
        let node_expiry = expiry.then_some(LIFETIME);
        let mut house = House::of(users(), Settings { node_expiry, ..Settings::default() });
        let (contexts, mut sections) = (contexts(), None);
        let nodes = [ALICES, BOBS, TAGGED, EPHEMERAL].map(|key| house.join_with(key.0, key));
        if let Some(command) = first_policy.map(Event::SetPolicy).and_then(|event| command(&house, &mut sections, &event)) {
            house.must(command);
        }
        let mut viewers = Vec::from(nodes.map(|node| Viewer::open_in(&house, node, contexts[0].clone())));
        for moment in moments {
            house.now += moment.pause;
            let batch: Vec<Command> =
                moment.events.iter().filter_map(|event| command(&house, &mut sections, event)).collect();
            house.batch(&batch);
            let context = &contexts[moment.context];
            for (bit, viewer) in viewers.iter_mut().enumerate() {
                let is_set = |bits: u16| bits & 1 << (bit % 16) != 0;
                if is_set(moment.lost) || (is_set(moment.wake) && !viewer.is_in(context)) {
                    viewer.wake_in(&house, context.clone());
                } else if is_set(moment.wake) {
                    viewer.wake(&house);
                }
            }
            viewers.retain(|viewer| !viewer.has_ended);
            for command in &batch {
                if let Command::Connect { node, .. } = command
                    && house.newest().tailnet.node(*node).is_some()
                {
                    viewers.push(Viewer::open_in(&house, *node, context.clone()));
                }
            }
        }
        for viewer in &mut viewers {
            viewer.wake(&house);
        }
    }
}
