//! Tests of postures.

use std::sync::Arc;

use super::meets;
use crate::facts::Device;
use crate::policy::{Comparison, Condition};

fn device() -> Device {
    Device {
        os: "macOS".into(),
        os_version: "14.5".into(),
        client_version: "1.80.2-t8ad3e0c1f".into(),
    }
}

fn check(attribute: &str, comparison: Comparison, expected: bool) {
    let condition = Condition { attribute: attribute.into(), comparison };
    assert_eq!(meets(std::slice::from_ref(&condition), &device()), expected, "{condition:?}");
}

fn text(value: &str) -> Arc<str> {
    value.into()
}

#[test]
fn the_system_is_compared_without_regard_to_case() {
    check("node:os", Comparison::Equal(text("macos")), true);
    check("node:os", Comparison::NotEqual(text("macos")), false);
    check("node:os", Comparison::In(vec![text("linux"), text("MacOS")]), true);
    check("node:os", Comparison::NotIn(vec![text("linux"), text("MacOS")]), false);
    check("node:os", Comparison::NotIn(vec![text("linux")]), true);
}

#[test]
fn versions_are_compared_part_by_part() {
    check("node:tsVersion", Comparison::GreaterOrEqual(text("1.80.2")), true);
    check("node:tsVersion", Comparison::GreaterOrEqual(text("1.9")), true);
    check("node:tsVersion", Comparison::Greater(text("1.80.2")), false);
    check("node:tsVersion", Comparison::Less(text("1.100")), true);
    check("node:tsVersion", Comparison::LessOrEqual(text("1.80.1")), false);
    check("node:tsVersion", Comparison::LessOrEqual(text("1.80.2")), true);
    check("node:osVersion", Comparison::Equal(text("14.5.0")), true);
    check("node:osVersion", Comparison::NotEqual(text("14.5.1")), true);
}

#[test]
fn what_is_no_version_is_neither_less_nor_greater() {
    check("node:os", Comparison::Less(text("zos")), false);
    check("node:tsVersion", Comparison::Greater(text("old")), false);
    check("node:tsVersion", Comparison::Greater(text("1..2")), false);
    check("node:tsVersion", Comparison::Less(text("99999999999999999999999")), false);
}

#[test]
fn an_unknown_attribute_is_not_set() {
    check("custom:tier", Comparison::Equal(text("gold")), false);
    check("custom:tier", Comparison::NotEqual(text("gold")), false);
    check("custom:tier", Comparison::NotIn(vec![text("gold")]), false);
    check("custom:tier", Comparison::IsSet, false);
    check("custom:tier", Comparison::IsNotSet, true);
    check("node:os", Comparison::IsSet, true);
    check("node:os", Comparison::IsNotSet, false);
}

#[test]
fn an_empty_attribute_is_not_set() {
    let condition = Condition { attribute: "node:os".into(), comparison: Comparison::IsSet };
    assert!(!meets(&[condition], &Device::default()));
}

#[test]
fn all_conditions_must_be_met() {
    let condition = |comparison| Condition { attribute: "node:os".into(), comparison };
    let both = [condition(Comparison::IsSet), condition(Comparison::Equal(text("linux")))];
    assert!(!meets(&both, &device()));
    assert!(meets(&[], &device()));
}
