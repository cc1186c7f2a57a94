//! Section 13: conditions on source devices.

use std::cmp::Ordering;
use std::sync::Arc;

use mesh_policy::NodeFacts;
use mesh_policy::policy::{Comparison, Condition};

use super::Naive;

impl Naive<'_> {
    /// Section 13: whether a node meets one of some postures, that is all conditions of it.
    pub(super) fn meets_one_of(&self, postures: &[Arc<str>], node: &NodeFacts) -> bool {
        let meets = |name: &Arc<str>| {
            let conditions = self.policy.postures.get(name);
            conditions.is_some_and(|all| all.iter().all(|condition| is_met(condition, node)))
        };
        postures.iter().any(meets)
    }
}

fn is_met(condition: &Condition, node: &NodeFacts) -> bool {
    let value = match &*condition.attribute {
        "node:os" => &node.device.os,
        "node:osVersion" => &node.device.os_version,
        "node:tsVersion" => &node.device.client_version,
        _ => "",
    };
    if value.is_empty() {
        return condition.comparison == Comparison::IsNotSet;
    }
    match &condition.comparison {
        Comparison::Equal(wanted) => value == &**wanted,
        Comparison::NotEqual(wanted) => value != &**wanted,
        Comparison::Less(limit) => order(value, limit).is_lt(),
        Comparison::LessOrEqual(limit) => order(value, limit).is_le(),
        Comparison::Greater(limit) => order(value, limit).is_gt(),
        Comparison::GreaterOrEqual(limit) => order(value, limit).is_ge(),
        Comparison::In(wanted) => wanted.iter().any(|wanted| value == &**wanted),
        Comparison::NotIn(wanted) => !wanted.iter().any(|wanted| value == &**wanted),
        Comparison::IsSet => true,
        Comparison::IsNotSet => false,
    }
}

/// Compares versions of digits and dots, part by part.
fn order(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| -> Vec<u64> {
        text.split('.').map(|part| part.parse().unwrap_or_default()).collect()
    };
    parts(one).cmp(&parts(other))
}
