//! Whether a device meets the conditions of a posture.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::facts::Device;
use crate::policy::{Comparison, Condition};

/// Whether a device meets all conditions of a posture.
///
/// Known attributes are `node:os` (compared without regard to case), `node:osVersion` and `node:tsVersion` (compared
/// as versions, part by part). Any other attribute is one that the device lacks, and so is one whose value is empty.
///
/// Source: <https://tailscale.com/docs/features/device-posture>.
pub(crate) fn meets(conditions: &[Condition], device: &Device) -> bool {
    conditions.iter().all(|condition| meets_one(condition, device))
}

fn meets_one(condition: &Condition, device: &Device) -> bool {
    let value = attribute(&condition.attribute, device);
    if condition.comparison == Comparison::IsNotSet {
        return value.is_none();
    }
    value.is_some_and(|value| is_true_of(&condition.comparison, value))
}

fn attribute<'a>(name: &str, device: &'a Device) -> Option<&'a str> {
    let value = match name {
        "node:os" => &device.os,
        "node:osVersion" => &device.os_version,
        "node:tsVersion" => &device.client_version,
        _ => return None,
    };
    Some(&**value).filter(|value| !value.is_empty())
}

fn is_true_of(comparison: &Comparison, value: &str) -> bool {
    let is_any_of = |wanted: &[Arc<str>]| wanted.iter().any(|wanted| are_equal(value, wanted));
    let is_ordered = |wanted: &str, accepted: &[Ordering]| {
        compare_versions(value, wanted).is_some_and(|ordering| accepted.contains(&ordering))
    };
    match comparison {
        Comparison::Equal(wanted) => are_equal(value, wanted),
        Comparison::NotEqual(wanted) => !are_equal(value, wanted),
        Comparison::Less(wanted) => is_ordered(wanted, &[Ordering::Less]),
        Comparison::LessOrEqual(wanted) => is_ordered(wanted, &[Ordering::Less, Ordering::Equal]),
        Comparison::Greater(wanted) => is_ordered(wanted, &[Ordering::Greater]),
        Comparison::GreaterOrEqual(wanted) => {
            is_ordered(wanted, &[Ordering::Greater, Ordering::Equal])
        }
        Comparison::In(wanted) => is_any_of(wanted),
        Comparison::NotIn(wanted) => !is_any_of(wanted),
        Comparison::IsSet => true,
        Comparison::IsNotSet => false,
    }
}

/// Versions are equal part by part; everything else is text.
fn are_equal(value: &str, wanted: &str) -> bool {
    match compare_versions(value, wanted) {
        Some(ordering) => ordering == Ordering::Equal,
        None => value.eq_ignore_ascii_case(wanted),
    }
}

/// Compares what leads two versions; parts that one lacks are zero. `None` if either is not a version.
fn compare_versions(value: &str, wanted: &str) -> Option<Ordering> {
    let (value, wanted) = (parts(value)?, parts(wanted)?);
    let longest = value.len().max(wanted.len());
    let part = |parts: &[u64], index: usize| parts.get(index).copied().unwrap_or_default();
    (0..longest)
        .map(|index| part(&value, index).cmp(&part(&wanted, index)))
        .find(|ordering| ordering.is_ne())
        .or(Some(Ordering::Equal))
}

/// The numbers of a version, up to what follows them: `1.80.2-t12ab` is 1, 80, 2.
fn parts(version: &str) -> Option<Vec<u64>> {
    let end = version.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    version[..end.unwrap_or(version.len())].split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
