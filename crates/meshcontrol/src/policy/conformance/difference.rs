//! A fact that is not as it was captured, for people to read.

use std::fmt;

use serde_json::Value;

/// What was expected of a node, and what it got.
#[derive(Debug)]
pub(super) struct Difference {
    case: String,
    /// Of which node, and what of it.
    fact: String,
    expected: Value,
    got: Value,
}

impl Difference {
    pub(super) fn new(case: &str, fact: impl Into<String>, expected: Value, got: Value) -> Self {
        Self { case: case.to_owned(), fact: fact.into(), expected, got }
    }

    /// Of a run in which nobody had told which routes are approved.
    pub(super) fn without_approvals(mut self) -> Self {
        self.case.push_str(" (approved_routes removed)");
        self
    }
}

/// Lines with `-` were expected and are missing, lines with `+` are there instead.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.case, self.fact)?;
        let (expected, got) = (lines(&self.expected), lines(&self.got));
        let missing = without(&expected, &got);
        let surplus = without(&got, &expected);
        if missing.is_empty() && surplus.is_empty() {
            writeln!(f, "    in another order; expected:")?;
            return expected.iter().try_for_each(|line| writeln!(f, "    {line}"));
        }
        missing.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
        surplus.iter().try_for_each(|line| writeln!(f, "  + {line}"))
    }
}

/// A line for each element or member.
fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Array(elements) => elements.iter().map(Value::to_string).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}: {value}")).collect()
        }
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![value.to_string()],
    }
}

/// The lines of one list that the other has not, as often as they are surplus.
fn without(lines: &[String], others: &[String]) -> Vec<String> {
    let mut others = others.to_vec();
    let is_surplus = |line: &&String| match others.iter().position(|other| other == *line) {
        Some(index) => {
            others.swap_remove(index);
            false
        }
        None => true,
    };
    lines.iter().filter(is_surplus).cloned().collect()
}
