//! Laws over random commands: what the database holds is what memory believes, and nothing is there twice.

use mesh_model::{Node, NodeId, PreauthKeyId, SessionId, Tag, Tailnet, UserId};
use mesh_policy::{NodeFacts, UserFacts};
use mesh_testkit::{
    Rows, at, context, disco_key, new_preauth_key, new_user, node_key, registration,
};
use proptest::prelude::*;

use mesh_state::{Command, Context, Loaded, NodeUpdate, Registration, Settings, Snapshot, State};

/// Few of everything, so that commands meet.
fn command() -> impl Strategy<Value = Command> {
    let node = || (1..8_u32).prop_map(NodeId);
    let key = || (1..6_u64).prop_map(PreauthKeyId);
    let user = || (1..4_u64).prop_map(UserId);
    let name = || "[a-c]{1,2}".prop_map(String::from);
    prop_oneof![
        6 => (1..5_u64, 1..9_u64, prop::option::of(key()), prop::option::of(1..9_u64), 0..8_u8).prop_map(
            |(machine, key, preauth_key, old, kind)| Command::Register(Box::new(Registration {
                preauth_key,
                old_node_key: old.map(node_key),
                expiry: match kind { 0 => Some(at(-1)), 1 => Some(at(50)), _ => None },
                ephemeral: kind == 2,
                ..registration(machine, key)
            }))
        ),
        2 => (1..9_u64, user()).prop_map(|(login, user)| Command::ApproveLogin {
            auth_id: mesh_testkit::auth_id(login), user,
        }),
        1 => (1..9_u64).prop_map(|login| Command::RejectLogin { auth_id: mesh_testkit::auth_id(login) }),
        2 => (node(), 1..9_u64).prop_map(|(node, key)| Command::Connect {
            node, node_key: node_key(key), disco_key: disco_key(key),
        }),
        1 => (node(), 1..9_u64).prop_map(|(node, session)| Command::Disconnect {
            node, session: SessionId(session),
        }),
        2 => (node(), 1..9_u64, name()).prop_map(|(node, key, hostname)| {
            Command::UpdateNode(Box::new(NodeUpdate {
                node,
                node_key: node_key(key),
                disco_key: disco_key(key),
                hostinfo: Some(mesh_model::Hostinfo { hostname, ..Default::default() }),
                endpoints: vec![([10, 0, 0, 1], 1).into()],
                home_derp: Some(1),
                capability_version: 130,
            }))
        }),
        1 => (node(), prop::option::of(-5..99_i64)).prop_map(|(node, expires)| Command::SetNodeExpiry {
            node, expires_at: expires.map(at),
        }),
        1 => (node(), name()).prop_map(|(node, name)| Command::RenameNode { node, name }),
        1 => node().prop_map(|node| Command::TagNode { node, tags: vec![tag()] }),
        1 => node().prop_map(|node| Command::DeleteNode { node }),
        1 => name().prop_map(|name| Command::CreateUser(new_user(&name))),
        1 => (user(), name()).prop_map(|(user, name)| Command::RenameUser { user, name }),
        1 => user().prop_map(|user| Command::DeleteUser { user }),
        3 => (user(), any::<[bool; 3]>(), any::<u32>()).prop_map(|(user, [reusable, ephemeral, tagged], id)| {
            let mut key = new_preauth_key(&id.to_string(), user);
            (key.reusable, key.ephemeral) = (reusable, ephemeral);
            key.tags = if tagged { vec![tag()] } else { Vec::new() };
            Command::CreatePreauthKey(key)
        }),
        1 => key().prop_map(|key| Command::RevokePreauthKey { key }),
        1 => key().prop_map(|key| Command::DeletePreauthKey { key }),
        1 => (0..4_usize).prop_map(|number| crate::set_policy(POLICIES[number])),
        2 => Just(Command::Sweep),
    ]
}

/// Policies that name users by login, define tags, and deny; one fails its test.
const POLICIES: [&str; 4] = [
    "{}",
    r#"{"tagOwners": {"tag:t": []}, "acls": [{"action": "accept", "src": ["a@"], "dst": ["tag:t:*"]}]}"#,
    r#"{"acls": []}"#,
    r#"{"acls": [], "tests": [{"src": "100.64.0.1", "accept": ["100.64.0.2:80"]}]}"#,
];

fn tag() -> Tag {
    "tag:t".parse().expect("a tag")
}

/// Everything of a tailnet that a database keeps, in a form to compare.
fn stored(tailnet: &Tailnet) -> impl PartialEq + std::fmt::Debug + use<> {
    let nodes: Vec<_> =
        tailnet.nodes().map(|node| Node { session: None, ..Node::clone(node) }).collect();
    let tombstones: Vec<_> = tailnet.tombstones().copied().collect();
    (
        tailnet.users().cloned().collect::<Vec<_>>(),
        nodes,
        tailnet.preauth_keys().cloned().collect::<Vec<_>>(),
        tailnet.api_keys().cloned().collect::<Vec<_>>(),
        tailnet.policy_versions().cloned().collect::<Vec<_>>(),
        tombstones,
    )
}

/// Every index finds its node, and the policy knows exactly the nodes that are announced.
fn check_indexes(state: &State) {
    let Snapshot { tailnet, policy, .. } = &state.snapshot(at(0));
    for node in tailnet.nodes() {
        let id = Some(node.id);
        assert_eq!(tailnet.node_by_key(&node.node_key).map(|node| node.id), id);
        assert_eq!(tailnet.node_by_name(&node.given_name).map(|node| node.id), id);
        for address in node.addresses() {
            assert_eq!(tailnet.node_by_address(address).map(|node| node.id), id);
        }
        assert!(tailnet.nodes_of_machine(node.machine_key).any(|found| found.id == node.id));
        assert!(tailnet.nodes_of_user(node.owner.user()).any(|found| found.id == node.id));
        let known = node.is_announced().then(|| NodeFacts::from(&**node));
        assert_eq!(policy.node(node.id), known.as_ref());
    }
    assert_eq!(policy.nodes().filter(|node| tailnet.node(node.id).is_none()).count(), 0);
    let users: Vec<_> = tailnet.users().map(|user| UserFacts::from(&**user)).collect();
    assert!(policy.users().eq(users.iter()));
}

proptest! {
    #[test]
    fn memory_and_database_stay_the_same(
        batches in prop::collection::vec((prop::collection::vec(command(), 1..6), 0..9_i64), 1..25),
    ) {
        let settings = Settings {
            ephemeral_timeout: std::time::Duration::from_secs(10),
            restart_grace: std::time::Duration::from_secs(5),
            ..Settings::default()
        };
        let mut state = State::new(mesh_model::TailnetId(1), Loaded::default(), std::sync::Arc::default(), settings.clone(), at(0));
        let mut rows = Rows::default();
        let mut now = 0;
        for (commands, pause) in batches {
            now += pause;
            let context = Context { entropy: now.unsigned_abs(), ..context(at(now)) };
            // A batch whose commands get in each other's way is repeated one by one, as the store does.
            let mut draft = state.draft();
            for command in &commands {
                let _ = draft.apply(command, &context);
            }
            let refused = draft.batch(at(now)).is_some_and(|batch| rows.commit(&batch).is_err());
            if refused {
                for command in &commands {
                    let mut single = state.draft();
                    let _ = single.apply(command, &context);
                    if let Some(batch) = single.batch(at(now)) {
                        prop_assert_eq!(rows.commit(&batch), Ok(()), "{:?}", command);
                    }
                    (state, _) = single.finish();
                }
            } else {
                (state, _) = draft.finish();
            }
            prop_assert!(stored(&state.snapshot(at(now)).tailnet) == stored(&rows.load().tailnet));
            check_indexes(&state);
        }
        let reloaded = State::new(mesh_model::TailnetId(1), rows.load(), std::sync::Arc::default(), settings, at(now));
        check_indexes(&reloaded);
    }
}
