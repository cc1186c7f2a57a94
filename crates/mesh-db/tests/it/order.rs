//! Writes of a batch take effect in order, however they are sent.

use mesh_model::{Node, NodeId, PreauthKey, PreauthKeyId, User};
use mesh_state::Write;

use crate::on_both_engines;
use crate::scratch::{
    Scratch, commit, contents, load, node, preauth_key, put_node, put_preauth_key, put_user, user,
};

on_both_engines!(
    a_node_takes_over_what_another_gave_up,
    the_last_of_several_writes_to_a_row_stays,
    names_change_places,
    a_row_is_deleted_and_made_again,
);

fn named(id: u32, name: &str) -> Node {
    Node { given_name: name.to_owned(), ..node(id) }
}

async fn a_node_takes_over_what_another_gave_up(scratch: &Scratch) {
    let database = scratch.open().await;
    commit(&database, [put_user(user(1)), put_node(node(2))]).await.unwrap();
    let heir = Node { id: NodeId(1), ..node(2) };
    commit(&database, [Write::DeleteNode(NodeId(2)), put_node(heir.clone())]).await.unwrap();
    assert_eq!(contents(&load(&database).await.tailnet).nodes, [heir]);
}

async fn the_last_of_several_writes_to_a_row_stays(scratch: &Scratch) {
    let database = scratch.open().await;
    let writes = [
        put_node(named(1, "a")),
        put_user(user(1)),
        put_node(named(1, "b")),
        put_node(named(2, "a")),
        put_user(User { name: "z".to_owned(), ..user(1) }),
        put_node(named(1, "c")),
    ];
    commit(&database, writes).await.unwrap();
    let found = contents(&load(&database).await.tailnet);
    assert_eq!(found.nodes, [named(1, "c"), named(2, "a")]);
    assert_eq!(found.users[0].name, "z");
}

async fn names_change_places(scratch: &Scratch) {
    let database = scratch.open().await;
    let before = [put_user(user(1)), put_node(named(1, "a")), put_node(named(2, "b"))];
    commit(&database, before).await.unwrap();
    let swap = [put_node(named(1, "c")), put_node(named(2, "a")), put_node(named(1, "b"))];
    commit(&database, swap).await.unwrap();
    let nodes = contents(&load(&database).await.tailnet).nodes;
    assert_eq!(nodes, [named(1, "b"), named(2, "a")]);
}

async fn a_row_is_deleted_and_made_again(scratch: &Scratch) {
    let database = scratch.open().await;
    let again = PreauthKey { reusable: true, ..preauth_key(1) };
    let writes = [
        put_user(user(1)),
        put_preauth_key(preauth_key(1)),
        Write::DeletePreauthKey(PreauthKeyId(1)),
        put_preauth_key(again.clone()),
    ];
    commit(&database, writes).await.unwrap();
    assert_eq!(contents(&load(&database).await.tailnet).preauth_keys, [again]);
}
