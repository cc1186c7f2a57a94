//! Rows that somebody else has written.

use std::error::Error;

use mesh_model::{Hostinfo, Owner, UserId};
use mesh_state::Write;
use mesh_store::Persist as _;

use crate::on_both_engines;
use crate::scratch::{
    Scratch, TAILNET, api_key, commit, contents, load, node, policy_version, preauth_key,
    put_api_key, put_node, put_policy, put_preauth_key, put_user, tombstone, user,
};

on_both_engines!(a_row_that_makes_no_sense_is_named, json_has_many_ways_to_be_empty);

async fn a_row_that_makes_no_sense_is_named(scratch: &Scratch) {
    let database = scratch.open().await;
    let writes = [
        put_user(user(7)),
        put_user(user(1)),
        put_node(node(7)),
        put_preauth_key(preauth_key(7)),
        put_api_key(api_key(7)),
        Write::PutTombstone(tombstone(7)),
        put_policy(policy_version(7)),
    ];
    for (table, damage) in [
        ("node", "node_key = 'mkey:00'"),
        ("node", "machine_key = ''"),
        ("node", "ipv4 = '100.64.0.256'"),
        ("node", "tags = '[\"web\"]'"),
        ("node", "tags = '[\"tag:web\"]'"),
        ("node", "user_id = NULL"),
        ("node", "hostinfo = '[1]'"),
        ("node", "endpoints = '{'"),
        ("node", "register_method = 'magic'"),
        ("node", "capability_version = -1"),
        ("node", "home_derp = 4294967296"),
        ("node", "expires_at = 9223372036854775807"),
        ("preauth_key", "tags = '[1]'"),
        ("preauth_key", "used_by = -1"),
        ("api_key", "created_at = -9223372036854775808"),
        ("tombstone", "home_derp = -1"),
        ("users", "created_at = 9223372036854775807"),
        ("policy", "created_at = 9223372036854775807"),
        ("tailnet", "next_node_id = 4294967296"),
    ] {
        scratch.execute(wipe()).await;
        commit(&database, writes.clone()).await.unwrap();
        scratch.execute(&format!("UPDATE {table} SET {damage}")).await;
        let Err(error) = database.load(TAILNET).await else { panic!("{damage} was overlooked") };
        let what = error.source().unwrap().to_string();
        let id = if table == "tombstone" || table == "tailnet" { "" } else { "7" };
        assert!(what.contains(&format!("of table `{table}`")), "{damage}: {what}");
        assert!(what.contains(id) || what.contains("row 1 "), "{damage}: {what}");
        let why = error.source().unwrap().source().unwrap().to_string();
        let column = damage.split(' ').next().unwrap();
        let is_named = why.contains(column) || (column == "user_id" && why.contains("tags"));
        assert!(is_named, "{damage}: {why}");
    }
}

/// Empties all tables.
fn wipe() -> &'static str {
    "DELETE FROM change; DELETE FROM node; DELETE FROM preauth_key; DELETE FROM users;
     DELETE FROM api_key; DELETE FROM tombstone; DELETE FROM policy; DELETE FROM tailnet"
}

async fn json_has_many_ways_to_be_empty(scratch: &Scratch) {
    let database = scratch.open().await;
    commit(&database, [put_user(user(1)), put_node(node(1))]).await.unwrap();
    for empty in ["'null'", "''"] {
        let sql = format!(
            "UPDATE node SET hostinfo = {empty}, tags = {empty}, endpoints = {empty},
                 approved_routes = {empty}"
        );
        scratch.execute(&sql).await;
        let node = contents(&load(&database).await.tailnet).nodes.remove(0);
        assert_eq!(node.hostinfo, Hostinfo::default());
        assert_eq!(node.owner, Owner::User(UserId(1)));
        assert_eq!((node.endpoints, node.approved_routes), (Vec::new(), Vec::new()));
    }
}
