//! What programs print for people and scripts: text in columns, JSON, YAML; and errors in the same form.

use std::io::{self, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the help of every verb would repeat it, and the names say it")]
pub enum Output {
    // For people. Scripts written for headscale ask for it by an empty word.
    #[value(alias = "")]
    Table,
    Json,
    JsonLine,
    Yaml,
}

impl Output {
    /// Prints a value: for people the text, else the value itself.
    pub fn value(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = self.render(value)?.unwrap_or_else(text);
        print(format!("{}\n", text.trim_end()).as_bytes())
    }

    /// Tells why the command failed.
    pub fn error(self, error: &anyhow::Error) {
        #[derive(Serialize)]
        struct Failure {
            error: String,
        }
        let failure = Failure { error: format!("{error:#}") };
        let text = match self.render(&failure) {
            Ok(Some(text)) => text,
            Ok(None) | Err(_) => format!("Error: {}", failure.error),
        };
        tell(text.trim_end());
    }

    /// The value in a form for programs, if one is wanted.
    fn render(self, value: &impl Serialize) -> anyhow::Result<Option<String>> {
        Ok(match self {
            Self::Table => None,
            Self::Json => Some(serde_json::to_string_pretty(value)?),
            Self::JsonLine => Some(serde_json::to_string(value)?),
            Self::Yaml => Some(serde_saphyr::to_string(value)?),
        })
    }
}

/// Prints bytes as they are. A reader that has seen enough is no error.
pub fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells a person what is worth knowing beside the output.
pub fn warn(text: &str) {
    tell(&format!("Warning: {text}"));
}

/// Tells a person what there is to do or to wait for, beside the output.
pub fn tell(text: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table of columns by spaces, which programs that split lines can read too.
pub fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let header = header.map(str::to_uppercase);
    columns(std::iter::once(header).chain(rows))
}

/// One thing, a line for each of its properties.
pub fn properties(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    columns(rows.into_iter().map(|(name, value)| [format!("{name}:"), value]))
}

fn columns<const COLUMNS: usize>(rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row.map(|text| cell(&text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// What a terminal shows of a text, which may come from a stranger: characters that would steer the terminal
/// or turn the text around are replaced, nothing becomes a dash.
fn cell(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.is_empty() { "-".to_owned() } else { text.replace(steers, "\u{fffd}") }
}

/// An instant for people: UTC, whole seconds.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An instant that may never come.
pub fn instant_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), instant)
}

/// `yes` or `no`.
pub fn yes_no(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

/// Several things in one cell.
pub fn list(texts: &[String]) -> String {
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_cannot_steer_the_terminal() {
        let rows = [["\u{1b}[2Jevil\r\n\u{202e}x".to_owned(), "é 我".to_owned()]];
        let shown = table(["a", "b"], rows);
        assert_eq!(shown, "A             B\n\u{fffd}[2Jevil\u{fffd}\u{fffd}\u{fffd}x  é 我");
    }

    #[test]
    fn instants_are_shown_in_utc_to_the_second() {
        assert_eq!(instant("2026-01-01T01:00:00.9+01:00".parse().unwrap()), "2026-01-01T00:00:00Z");
        assert_eq!(instant_or_never(None), "never");
    }
}
