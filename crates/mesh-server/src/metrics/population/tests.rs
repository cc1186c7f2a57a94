use mesh_model::{ApiKeyId, NodeId, PreauthKeyId, SecretHash, TailnetId, UserId};
use mesh_state::{Command, Loaded, NewPreauthKey, NewSecret, Registration, Settings, State};
use mesh_testkit::{at, context, disco_key, new_preauth_key, new_user, node_key, registration};

use super::*;

const DAY: i64 = 24 * 60 * 60;

/// What a tailnet without a database shows of itself on day 10, after commands of day 0.
fn shown(commands: impl IntoIterator<Item = Command>) -> String {
    let state =
        State::new(TailnetId(1), Loaded::default(), Arc::default(), Settings::default(), at(0));
    let mut draft = state.draft();
    for command in commands {
        draft.apply(&command, &context(at(0))).expect("accepted");
    }
    let (state, _) = draft.finish();
    let population = Population::count(&state.snapshot(at(10 * DAY)), at(10 * DAY));
    let mut registry = Registry::default();
    registry.register("nodes", "", population.nodes.clone());
    registry.register("routes", "", population.routes.clone());
    registry.register("versions", "", population.versions.clone());
    registry.register("node_keys_expiring", "", population.node_keys_expiring.clone());
    registry.register("keys", "", population.keys.clone());
    registry.register("keys_expiring", "", population.keys_expiring.clone());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a text takes all");
    text
}

fn check(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|shown| shown == *line), "{line} is missing in\n{text}");
    }
}

#[test]
fn nodes_are_counted_by_state_and_owner() {
    let join = |number: u64| {
        let mut request =
            Registration { preauth_key: Some(PreauthKeyId(1)), ..registration(number, number) };
        request.hostinfo.ipn_version = format!("1.{}.1-t12", 90 + number % 2);
        request.hostinfo.routable_ips = vec!["10.0.0.0/8".parse().expect("a prefix")];
        request.expiry = (number == 3).then(|| at(12 * DAY));
        Command::Register(Box::new(request))
    };
    let key = NewPreauthKey { reusable: true, ..new_preauth_key("k", UserId(1)) };
    let connect =
        Command::Connect { node: NodeId(1), node_key: node_key(1), disco_key: disco_key(1) };
    let routes = vec!["10.0.0.0/8".parse().expect("a prefix"), "10.9.0.0/16".parse().expect("one")];
    let commands = [
        Command::CreateUser(new_user("alice")),
        Command::CreatePreauthKey(key),
        join(1),
        join(2),
        join(3),
        connect,
        Command::SetNodeExpiry { node: NodeId(2), expires_at: Some(at(5 * DAY)) },
        Command::ApproveRoutes { node: NodeId(1), routes },
    ];
    check(
        &shown(commands),
        &[
            r#"nodes{state="online",owner="user",ephemeral="false"} 1"#,
            r#"nodes{state="offline",owner="user",ephemeral="false"} 1"#,
            r#"nodes{state="expired",owner="user",ephemeral="false"} 1"#,
            r#"nodes{state="online",owner="tagged",ephemeral="true"} 0"#,
            r#"routes{state="active"} 1"#,
            r#"routes{state="pending"} 2"#,
            r#"routes{state="absent"} 1"#,
            r#"versions{version="1.91"} 2"#,
            r#"versions{version="1.90"} 1"#,
            r#"versions{version="other"} 0"#,
            r#"node_keys_expiring{window="1d"} 0"#,
            r#"node_keys_expiring{window="7d"} 1"#,
            r#"node_keys_expiring{window="30d"} 1"#,
        ],
    );
}

#[test]
fn keys_are_counted_by_what_can_be_done_with_them() {
    let expires = |days: i64| Some(at(days * DAY));
    let preauth = |name: &str, expires_at| {
        Command::CreatePreauthKey(NewPreauthKey { expires_at, ..new_preauth_key(name, UserId(1)) })
    };
    let secret =
        |name: &str| NewSecret { public_id: name.to_owned(), hash: SecretHash("hash".to_owned()) };
    let commands = [
        Command::CreateUser(new_user("alice")),
        preauth("used", None),
        preauth("over", expires(9)),
        preauth("soon", expires(15)),
        preauth("back", None),
        Command::RevokePreauthKey { key: PreauthKeyId(4) },
        Command::Register(Box::new(Registration {
            preauth_key: Some(PreauthKeyId(1)),
            ..registration(1, 1)
        })),
        Command::CreateApiKey { secret: secret("a"), expires_at: expires(10) },
        Command::CreateApiKey { secret: secret("b"), expires_at: None },
        Command::DeleteApiKey { key: ApiKeyId(2) },
        Command::CreateApiKey { secret: secret("c"), expires_at: expires(11) },
    ];
    check(
        &shown(commands),
        &[
            r#"keys{kind="preauth",state="valid"} 1"#,
            r#"keys{kind="preauth",state="used"} 1"#,
            r#"keys{kind="preauth",state="expired"} 1"#,
            r#"keys{kind="preauth",state="revoked"} 1"#,
            r#"keys{kind="api",state="valid"} 1"#,
            r#"keys{kind="api",state="expired"} 1"#,
            r#"keys_expiring{kind="preauth",window="1d"} 0"#,
            r#"keys_expiring{kind="preauth",window="7d"} 1"#,
            r#"keys_expiring{kind="api",window="1d"} 1"#,
        ],
    );
}

#[test]
fn versions_of_clients_are_two_numbers_or_none() {
    assert_eq!(version("1.90.2-t0a1b2c3"), Some((1, 90)));
    assert_eq!(version("1.90"), Some((1, 90)));
    for odd in ["", "1", "x.y", "1.x", "1.99999", "-1.2", "1..2"] {
        assert_eq!(version(odd), None, "{odd}");
    }
}
