//! Whether a program outlives an edit of its policy.

use crate::policy::{Acl, Grant, NodeAttributes, Policy, SshRule};

/// Whether two policies differ at most in the members of groups, in tests, and in where things stand in the text.
pub(crate) fn has_same_rules(one: &Policy, other: &Policy) -> bool {
    let acls = |one: &Acl, other: &Acl| {
        one.src == other.src
            && one.dst == other.dst
            && one.proto == other.proto
            && one.src_posture == other.src_posture
    };
    let grants = |one: &Grant, other: &Grant| Grant { line: one.line, ..other.clone() } == *one;
    let ssh = |one: &SshRule, other: &SshRule| SshRule { line: one.line, ..other.clone() } == *one;
    let attributes = |one: &NodeAttributes, other: &NodeAttributes| {
        NodeAttributes { line: one.line, ..other.clone() } == *one
    };
    let lists = |policy: &Policy| (policy.acls.is_some(), policy.grants.is_some());
    let flags = |policy: &Policy| {
        (policy.randomize_client_port, policy.disable_ipv4, policy.one_cgnat_route)
    };
    one.selectors == other.selectors
        && one.groups.keys().eq(other.groups.keys())
        && one.hosts == other.hosts
        && one.ipsets == other.ipsets
        && one.tag_owners == other.tag_owners
        && one.auto_approvers == other.auto_approvers
        && one.postures == other.postures
        && lists(one) == lists(other)
        && flags(one) == flags(other)
        && are_all(one.acls.iter().flatten(), other.acls.iter().flatten(), acls)
        && are_all(one.grants.iter().flatten(), other.grants.iter().flatten(), grants)
        && are_all(one.ssh.iter(), other.ssh.iter(), ssh)
        && are_all(one.node_attrs.iter(), other.node_attrs.iter(), attributes)
}

fn are_all<'a, T: 'a>(
    one: impl Iterator<Item = &'a T>,
    mut other: impl Iterator<Item = &'a T>,
    are_alike: impl Fn(&T, &T) -> bool,
) -> bool {
    one.map(Some).all(|item| item.zip(other.next()).is_some_and(|(a, b)| are_alike(a, b)))
        && other.next().is_none()
}
