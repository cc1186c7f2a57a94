//! The server's log, read back.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// One line of a server's JSON log.
#[derive(Debug, Clone, Deserialize)]
pub struct LogLine {
    /// When it was written, RFC 3339.
    pub timestamp: jiff::Timestamp,
    /// `ERROR`, `WARN`, `INFO`, ...
    pub level: String,
    /// What happened.
    pub message: String,
    /// What else was logged with it, and `target`, the module.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl LogLine {
    /// A field as text: `node.id` of whatever type.
    pub fn field(&self, name: &str) -> Option<String> {
        let value = self.fields.get(name)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// Whether it calls for attention.
    pub(crate) fn is_alarm(&self) -> bool {
        matches!(self.level.as_str(), "WARN" | "ERROR")
    }
}

/// Reads a log. Lines that are not JSON, such as what a first start prints for people, are left out.
pub(crate) fn read(path: &Path) -> Result<Vec<LogLine>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The last lines of any log file.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
