//! Reading what `benchgen` wrote.

use super::{Node, Owner, parse_node};

#[test]
fn nodes_belong_to_users_or_have_tags() {
    let node = |owner| Node { hostname: "node1".to_owned(), owner };
    let user = Owner::User("user7".to_owned());
    assert_eq!(parse_node("node1 user:user7").unwrap(), node(user));
    let tags = Owner::Tags("tag:a,tag:b".to_owned());
    assert_eq!(parse_node("node1 tag:a,tag:b").unwrap(), node(tags));
    parse_node("node1").unwrap_err();
}
