//! `postures`: conditions on devices.
//!
//! A condition is an attribute, an operator and a value: `node:os == 'macos'`, `node:tsVersion >= '1.40'`,
//! `node:os IN ['macos', 'linux']`, `custom:tier IS SET`. Source:
//! <https://tailscale.com/docs/features/device-posture>.

use std::sync::Arc;

use super::Decoder;
use crate::hujson::Read;
use crate::policy::{Comparison, Condition};
use crate::problem::quoted;

/// How many conditions, and commas in them, `postures` may have: each value of a list costs more than its text.
const CONDITIONS_MAX: usize = 20_000;

impl Decoder<'_> {
    pub(super) fn postures(&mut self) -> Read<()> {
        let mut left = CONDITIONS_MAX;
        self.map(|decoder, name| {
            if !name.starts_with("posture:") {
                decoder
                    .refuse(format!("posture must start with 'posture:', got: {}", quoted(&name)));
            }
            if decoder.policy.postures.contains_key(name.as_ref()) {
                decoder.refuse_duplicate(&name);
            }
            let start = decoder.reader.token();
            let mut count = 0;
            let conditions = decoder.texts(|decoder, text| {
                count += 1;
                if !decoder.count_condition(&text, &mut left) {
                    return None;
                }
                let refuse =
                    |error| decoder.refuse(format!("condition {}: {error}", quoted(&text)));
                parse_condition(&text).map_err(refuse).ok()
            })?;
            if count == 0 {
                decoder.refuse_at(start, "a posture needs at least one condition");
            }
            decoder.policy.postures.insert(name.into(), conditions);
            Ok(())
        })
    }

    /// Whether there is room for a condition. The first for which there is none is told of.
    fn count_condition(&mut self, text: &str, left: &mut usize) -> bool {
        let cost = 1 + text.matches(',').count();
        if let Some(rest) = left.checked_sub(cost) {
            *left = rest;
            return true;
        }
        if std::mem::take(left) > 0 {
            self.refuse(format!(
                "the postures together have more than {CONDITIONS_MAX} conditions and values of lists"
            ));
        }
        false
    }
}

/// Reads a condition.
///
/// # Errors
/// What is expected where it ends being one.
fn parse_condition(text: &str) -> Result<Condition, &'static str> {
    let mut rest = text.trim();
    let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
    let attribute = &rest[..end];
    let has_namespace = attribute
        .split_once(':')
        .is_some_and(|(space, name)| !space.is_empty() && !name.is_empty());
    if !has_namespace {
        return Err("it begins with an attribute such as node:os");
    }
    rest = rest[end..].trim_start();
    let comparison = parse_comparison(rest)?;
    Ok(Condition { attribute: attribute.into(), comparison })
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, ':' | '_' | '-' | '.' | '/')
}

type Compare = fn(Arc<str>) -> Comparison;

fn parse_comparison(text: &str) -> Result<Comparison, &'static str> {
    let symbols: [(&str, Compare); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (symbol, make) in symbols {
        if let Some(rest) = text.strip_prefix(symbol) {
            let (value, rest) = parse_value(rest)?;
            return if rest.is_empty() { Ok(make(value)) } else { Err("it ends after its value") };
        }
    }
    let (word, rest) = next_word(text);
    if word.eq_ignore_ascii_case("IN") {
        return parse_values(rest).map(Comparison::In);
    }
    let (second, rest) = next_word(rest);
    match (word.to_ascii_uppercase().as_str(), second.to_ascii_uppercase().as_str()) {
        ("NOT", "IN") => parse_values(rest).map(Comparison::NotIn),
        ("IS", "SET") if rest.is_empty() => Ok(Comparison::IsSet),
        ("NOT", "SET") if rest.is_empty() => Ok(Comparison::IsNotSet),
        _ => Err(
            "after the attribute comes one of ==, !=, <, <=, >, >=, IN, NOT IN, IS SET, NOT SET",
        ),
    }
}

/// The letters that come first, and the rest without white space before it.
fn next_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A value and what follows: a quoted text, a number, `true` or `false`.
fn parse_value(text: &str) -> Result<(Arc<str>, &str), &'static str> {
    let text = text.trim_start();
    let wanted = "a value is expected: a text in single quotes, a number, true or false";
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (value, rest) =
            text[1..].split_once(quote).ok_or("the value's closing quote is missing")?;
        return Ok((value.into(), rest.trim_start()));
    }
    let end = text.find(|c: char| c == ',' || c == ']' || c.is_whitespace()).unwrap_or(text.len());
    let value = &text[..end];
    let is_plain =
        matches!(value, "true" | "false") || value.parse::<f64>().is_ok_and(f64::is_finite);
    if is_plain { Ok((value.into(), text[end..].trim_start())) } else { Err(wanted) }
}

/// `['a', 'b']`, and nothing after it.
fn parse_values(text: &str) -> Result<Vec<Arc<str>>, &'static str> {
    let mut rest = text.strip_prefix('[').ok_or("a list of values is expected: ['a', 'b']")?;
    let mut values = Vec::with_capacity(rest.split(',').count());
    loop {
        let (value, after) = parse_value(rest)?;
        values.push(value);
        if let Some(after) = after.strip_prefix(',') {
            rest = after;
        } else if let Some(after) = after.strip_prefix(']') {
            return if after.trim().is_empty() {
                Ok(values)
            } else {
                Err("it ends after its list")
            };
        } else {
            return Err("a `,` or `]` is expected after a value of a list");
        }
    }
}
