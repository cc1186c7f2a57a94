//! What each key is set to, and who said so, for people who look into a running server.

use crate::document::{self, Content, Node};
use crate::finding::{Origin, Report};
use crate::key::{Key, Section as _};
use crate::layers::{Given, Layers, Source};
use crate::sections::Config;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// A key, its value and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key, such as `derp.server.enabled`.
    pub path: &'static str,
    /// The value as it is written, lists and sections as YAML on one line; never a secret.
    pub value: String,
    /// Who gave it.
    pub origin: Origin,
}

/// Every key of a configuration that was accepted, in the order of the example file. Relative paths are shown as they
/// are written.
pub fn settings(source: &Source) -> Vec<Setting> {
    let document = source.file.as_ref().and_then(|(_, text)| document::parse(text).ok());
    let layers = Layers::new(source, document.unwrap_or_else(Node::nothing));
    let report = Report::new(source.file.as_ref().map(|(path, _)| path.clone()));
    Config::keys().iter().map(|key| setting(key, &layers, &report)).collect()
}

fn setting(key: &Key, layers: &Layers<'_>, report: &Report) -> Setting {
    let (value, origin) = match layers.given(key, report) {
        Some(Given::Node(origin, node)) => (one_line(node), origin),
        Some(Given::Text(origin, text)) => (text.to_owned(), origin),
        None => (key.default.trim_matches('"').to_owned(), Origin::Default),
    };
    let hides = key.type_name.contains("Secret") && !value.is_empty();
    Setting { path: key.path, value: if hides { HIDDEN.to_owned() } else { value }, origin }
}

fn one_line(node: &Node) -> String {
    match &node.content {
        Content::Null => String::new(),
        Content::Text(text) => text.clone(),
        Content::List(elements) => {
            let elements: Vec<String> = elements.iter().map(one_line).collect();
            format!("[{}]", elements.join(", "))
        }
        Content::Map(entries) => {
            let entry = |(name, value): &(document::Name, Node)| {
                format!("{}: {}", name.text, one_line(value))
            };
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}
