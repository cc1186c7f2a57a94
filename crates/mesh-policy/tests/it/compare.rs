//! Tells where two views differ, as briefly as it can.

use std::fmt::Debug;
use std::sync::Arc;

use mesh_policy::{FilterRule, NodeView, RawJson, SshAccess};

/// The first difference of two views; none if they say the same.
pub(crate) fn first_difference(ours: &NodeView, theirs: &NodeView) -> Option<String> {
    let (ours, theirs) = (normal(ours), normal(theirs));
    member("attributes", &ours.attributes, &theirs.attributes)
        .or_else(|| member("addresses", &ours.addresses, &theirs.addresses))
        .or_else(|| member("primary routes", &ours.primary_routes, &theirs.primary_routes))
        .or_else(|| lists("packet filter", &ours.packet_filter, &theirs.packet_filter))
        .or_else(|| lists("ssh", &ours.ssh, &theirs.ssh))
        .or_else(|| peers(&ours, &theirs))
}

fn peers(ours: &NodeView, theirs: &NodeView) -> Option<String> {
    let ids = ours.peers.keys().chain(theirs.peers.keys());
    ids.copied().find_map(|id| {
        let what = format!("peer {id:?}");
        member(&what, &ours.peers.get(&id), &theirs.peers.get(&id))
    })
}

fn member<T: PartialEq + Debug>(what: &str, ours: &T, theirs: &T) -> Option<String> {
    (ours != theirs).then(|| format!("{what}\n  engine {ours:?}\n  judge  {theirs:?}"))
}

fn lists<T: PartialEq + Debug>(what: &str, ours: &[T], theirs: &[T]) -> Option<String> {
    let longer = ours.len().max(theirs.len());
    (0..longer)
        .find_map(|index| member(&format!("{what}[{index}]"), &ours.get(index), &theirs.get(index)))
}

/// Sorts what has no order, and has lists of no values absent: they mean the same.
fn normal(view: &NodeView) -> NodeView {
    NodeView {
        packet_filter: view.packet_filter.iter().cloned().map(normal_rule).collect(),
        ssh: view.ssh.iter().cloned().map(normal_access).collect(),
        ..view.clone()
    }
}

fn normal_rule(mut rule: FilterRule) -> FilterRule {
    rule.dst_ports.sort();
    for grant in &mut rule.cap_grant {
        grant.dsts.sort();
        let absent_if_empty = |values: &mut Option<Vec<RawJson>>| {
            *values = values.take().filter(|values| !values.is_empty());
        };
        Arc::make_mut(&mut grant.cap_map).values_mut().for_each(absent_if_empty);
    }
    rule
}

fn normal_access(mut access: SshAccess) -> SshAccess {
    let mut principals = access.principals.to_vec();
    principals.sort();
    access.principals = principals.into();
    access.recorders.sort();
    access
}
