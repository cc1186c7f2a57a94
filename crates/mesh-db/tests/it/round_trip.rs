//! What is written is read back, whatever it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_db::Database;
use mesh_keys::{DiscoPublic, NetworkLockPublic, NodePublic};
use mesh_model::{
    ApiKeyId, Hostinfo, Location, Node, NodeId, Owner, PolicyVersion, PreauthKey, PreauthKeyId,
    RegisterMethod, Service, Tag, TailnetId, Timestamp, Tombstone, User, UserId,
};
use mesh_state::{Counters, Write};
use mesh_store::Persist as _;

use crate::on_both_engines;
use crate::scratch::{
    Contents, Scratch, TAILNET, api_key, at, batch, commit, contents, load, node, policy_version,
    preauth_key, put_api_key, put_node, put_policy, put_preauth_key, put_user, tombstone, user,
};

on_both_engines!(
    a_fresh_database_is_empty,
    every_record_comes_back,
    every_record_is_replaced,
    every_record_is_deleted,
    a_burnt_key_comes_back,
    counters_and_revision_come_back,
    a_thousand_nodes_come_back,
    tailnets_are_apart,
    the_database_answers_pings,
);

/// Text that databases, encodings and quoting trip over.
const WILD: &str = "O'Brien \"q\" \\ % $1 ? ; -- é 我 🦀 \u{7f}\n\t\u{feff}";

async fn a_fresh_database_is_empty(scratch: &Scratch) {
    let loaded = load(&scratch.open().await).await;
    assert_eq!(loaded.revision, 0);
    assert_eq!(loaded.counters, Counters::default());
    assert_eq!(contents(&loaded.tailnet), none());
}

async fn every_record_comes_back(scratch: &Scratch) {
    check(scratch, small()).await;
}

async fn every_record_is_replaced(scratch: &Scratch) {
    let database = check(scratch, small()).await;
    database.close().await;
    check(scratch, extreme()).await;
}

async fn every_record_is_deleted(scratch: &Scratch) {
    let database = check(scratch, extreme()).await;
    let Contents { users, nodes, preauth_keys, api_keys, tombstones, policy_versions } = extreme();
    let mut writes = Vec::new();
    writes.extend(users.iter().map(|user| Write::DeleteUser(user.id)));
    writes.extend(nodes.iter().map(|node| Write::DeleteNode(node.id)));
    writes.extend(preauth_keys.iter().map(|key| Write::DeletePreauthKey(key.id)));
    writes.extend(api_keys.iter().map(|key| Write::DeleteApiKey(key.id)));
    let delete = |t: &Tombstone| Write::DeleteTombstone(t.machine_key, t.node_key);
    writes.extend(tombstones.iter().map(delete));
    writes.extend(policy_versions.iter().map(|version| Write::DeletePolicy(version.id)));
    commit(&database, writes.clone()).await.unwrap();
    assert_eq!(contents(&load(&database).await.tailnet), none());
    commit(&database, writes).await.expect("what is gone may be deleted again");
}

async fn a_burnt_key_comes_back(scratch: &Scratch) {
    let database = scratch.open().await;
    let burn = Write::BurnPreauthKey { key: PreauthKeyId(1), node: NodeId(1), at: at(7) };
    let writes = [burn, put_preauth_key(preauth_key(2)), put_node(node(1)), put_user(user(1))];
    commit(&database, [put_user(user(1)), put_preauth_key(preauth_key(1))]).await.unwrap();
    commit(&database, writes).await.unwrap();
    let used = PreauthKey { used_at: Some(at(7)), used_by: Some(NodeId(1)), ..preauth_key(1) };
    let keys = contents(&load(&database).await.tailnet).preauth_keys;
    assert_eq!(keys, [used, preauth_key(2)]);
}

async fn counters_and_revision_come_back(scratch: &Scratch) {
    let database = scratch.open().await;
    load(&database).await;
    let largest = i64::MAX.cast_unsigned();
    let counters =
        Counters { user: largest, node: u32::MAX, preauth_key: largest, api_key: largest };
    for revision in 1..=3 {
        let batch = mesh_state::Batch { counters, ..batch(revision, []) };
        database.commit(&batch).await.unwrap();
    }
    let loaded = load(&database).await;
    assert_eq!((loaded.revision, loaded.counters), (3, counters));
}

async fn a_thousand_nodes_come_back(scratch: &Scratch) {
    let database = scratch.open().await;
    let nodes: Vec<_> = (1..=1023).map(node).collect();
    let mut writes = vec![put_user(user(1))];
    writes.extend(nodes.iter().cloned().map(put_node));
    commit(&database, writes).await.unwrap();
    assert_eq!(contents(&load(&database).await.tailnet).nodes, nodes);
}

async fn tailnets_are_apart(scratch: &Scratch) {
    let database = check(scratch, small()).await;
    let other = TailnetId(i64::MAX.cast_unsigned());
    assert_eq!(contents(&database.load(other).await.unwrap().tailnet), none());
    let batch = mesh_state::Batch { tailnet: other, ..batch(1, writes(&small())) };
    database.commit(&batch).await.unwrap();
    let batch =
        mesh_state::Batch { revision: 2, writes: vec![Write::DeleteNode(NodeId(1))], ..batch };
    database.commit(&batch).await.unwrap();
    assert_eq!(database.load(TAILNET).await.unwrap().revision, 1);
    assert_eq!(contents(&load(&database).await.tailnet), small());
    assert_eq!(contents(&database.load(other).await.unwrap().tailnet).nodes.len(), 1);
}

async fn the_database_answers_pings(scratch: &Scratch) {
    let database = scratch.open().await;
    for _ in 0..3 {
        database.ping().await.unwrap();
    }
    database.close().await;
    database.ping().await.expect("a connection that is gone is made again");
    database.close().await;
}

/// Commits all records in one batch, and reads them with another connection.
async fn check(scratch: &Scratch, records: Contents) -> Database {
    let database = scratch.open().await;
    commit(&database, writes(&records)).await.unwrap();
    let reader = scratch.open().await;
    assert_eq!(contents(&load(&reader).await.tailnet), records);
    reader.close().await;
    database
}

fn writes(records: &Contents) -> Vec<Write> {
    let Contents { users, nodes, preauth_keys, api_keys, tombstones, policy_versions } = records;
    let mut writes = Vec::new();
    // Nodes before their users: only the whole batch has to make sense.
    writes.extend(nodes.iter().cloned().map(put_node));
    writes.extend(preauth_keys.iter().cloned().map(put_preauth_key));
    writes.extend(users.iter().cloned().map(put_user));
    writes.extend(api_keys.iter().cloned().map(put_api_key));
    writes.extend(tombstones.iter().copied().map(Write::PutTombstone));
    writes.extend(policy_versions.iter().cloned().map(put_policy));
    writes
}

fn none() -> Contents {
    Contents {
        users: Vec::new(),
        nodes: Vec::new(),
        preauth_keys: Vec::new(),
        api_keys: Vec::new(),
        tombstones: Vec::new(),
        policy_versions: Vec::new(),
    }
}

/// Records with as little in them as may be.
fn small() -> Contents {
    let largest = i64::MAX.cast_unsigned();
    Contents {
        users: vec![user(1), user(largest)],
        nodes: vec![
            Node { ipv4: None, ipv6: None, ..node(1) },
            Node { ipv4: None, ipv6: None, ..node(u32::MAX) },
        ],
        preauth_keys: vec![preauth_key(1), preauth_key(largest)],
        api_keys: vec![api_key(1), api_key(largest)],
        tombstones: vec![tombstone(1), tombstone(2)],
        policy_versions: vec![policy_version(1), policy_version(largest)],
    }
}

/// Records of the same ids with as much in them as may be, each field different from any other.
fn extreme() -> Contents {
    let largest = i64::MAX.cast_unsigned();
    let person = User {
        id: UserId(1),
        name: format!("name {WILD}"),
        display_name: format!("display {WILD}"),
        email: format!("email {WILD}"),
        profile_pic_url: format!("url {WILD}"),
        provider: format!("provider {WILD}"),
        provider_id: format!("id {WILD}"),
        created_at: Timestamp::MIN,
    };
    let key = PreauthKey {
        public_id: format!("public {WILD}"),
        user: None,
        tags: tags(),
        reusable: true,
        ephemeral: true,
        used_at: Some(at(1)),
        used_by: Some(NodeId(u32::MAX)),
        expires_at: Some(at(2)),
        revoked_at: Some(at(3)),
        created_at: at(-4),
        ..preauth_key(1)
    };
    let mut api_key_1 = api_key(1);
    api_key_1.expires_at = Some(at(i64::from(i32::MAX)));
    api_key_1.last_seen_at = Some(at(-1));
    let policy = PolicyVersion {
        text: format!("{{ // {WILD}\r\n}}").repeat(10_000),
        digest: "f".repeat(64),
        created_by: format!("by {WILD}"),
        created_at: Timestamp::MIN,
        ..policy_version(1)
    };
    let buried = Tombstone { home_derp: Some(u32::MAX), deleted_at: at(5), ..tombstone(1) };
    Contents {
        users: vec![person, user(largest)],
        nodes: vec![
            crowded_node(),
            Node { register_method: RegisterMethod::Cli, ..node(u32::MAX) },
        ],
        preauth_keys: vec![key, preauth_key(largest)],
        api_keys: vec![api_key_1, mesh_model::ApiKey { id: ApiKeyId(largest), ..api_key(largest) }],
        tombstones: vec![buried, tombstone(2)],
        policy_versions: vec![policy, policy_version(largest)],
    }
}

fn crowded_node() -> Node {
    Node {
        node_key: NodePublic::from_bytes([1; 32]),
        previous_node_key: Some(NodePublic::from_bytes([2; 32])),
        disco_key: DiscoPublic::from_bytes([3; 32]),
        network_lock_key: NetworkLockPublic::from_bytes([255; 32]),
        hostinfo: crowded_hostinfo(),
        given_name: "x".repeat(63),
        name_is_chosen: true,
        ipv4: Some(Ipv4Addr::BROADCAST),
        ipv6: Some(Ipv6Addr::from_bits(u128::MAX)),
        owner: Owner::Tags(tags()),
        register_method: RegisterMethod::Oidc,
        preauth_key: Some(PreauthKeyId(i64::MAX.cast_unsigned())),
        ephemeral: true,
        capability_version: u32::MAX,
        endpoints: vec![
            "[2001:db8::1%7]:65535".parse().unwrap(),
            "0.0.0.0:0".parse().unwrap(),
            "[::ffff:1.2.3.4]:1".parse().unwrap(),
        ],
        home_derp: Some(u32::MAX),
        approved_routes: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        created_at: at(-1),
        expires_at: Some(at(253_402_207_200_000)),
        last_seen_at: Some(at(1)),
        ..node(1)
    }
}

fn crowded_hostinfo() -> Hostinfo {
    let text = |field: &str| format!("{field} {WILD}\0");
    Hostinfo {
        hostname: text("hostname"),
        os: text("os"),
        os_version: text("os_version"),
        ipn_version: text("ipn_version"),
        app: text("app"),
        device_model: text("device_model"),
        services: vec![Service { proto: text("proto"), port: 65535, description: text("what") }],
        routable_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/128".parse().unwrap()],
        request_tags: vec![text("tag")],
        ssh_host_keys: vec![text("ssh")],
        location: Some(Location {
            country: text("country"),
            country_code: text("cc"),
            city: text("city"),
            city_code: text("code"),
            latitude: 0.1 + 0.2,
            longitude: -f64::MIN_POSITIVE,
            priority: i64::MIN,
        }),
        sharee_node: true,
        app_connector: Some(false),
        peer_relay: true,
        shields_up: true,
    }
}

fn tags() -> Vec<Tag> {
    vec!["tag:b".parse().unwrap(), "tag:a".parse().unwrap()]
}
