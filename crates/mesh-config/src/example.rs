//! The example file, written from the keys themselves so that it cannot go stale.

use std::fmt::Write as _;

use crate::key::{Key, Section as _};
use crate::sections::Config;

/// What the file begins with.
const HEAD: &str = "\
# Every key of meshcontrol's configuration with its default. A line that begins with \"# key:\" shows
# a key that is unset, or whose default lies in the data directory. Give only what you change:
# meshcontrol runs with an empty file, or none.
#
# Every key can also be given as an environment variable, which wins over the file: MESHCONTROL_ and
# the path of the key in capitals, with _ for each dot. derp.server.enabled is
# MESHCONTROL_DERP_SERVER_ENABLED. Lists are written with commas between their elements, sections of
# data as YAML on one line.
#
# Durations are written as 30s, 15m, 24h, 7d, 2w or 1y. Relative paths are relative to this file.
";

/// The text of `config.example.yaml`: every key with its sentence and its default.
pub fn example_yaml() -> String {
    let mut text = HEAD.to_owned();
    let mut above: Vec<&str> = Vec::new();
    for key in Config::keys() {
        let segments: Vec<&str> = key.path.split('.').collect();
        let (sections, name) = segments.split_at(segments.len() - 1);
        text.push('\n');
        let shared = sections.iter().zip(&above).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(shared) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:indent$}{section}:", "", indent = 2 * depth);
        }
        write_key(&mut text, &key, name[0], 2 * sections.len());
        above = sections.to_vec();
    }
    text
}

fn write_key(text: &mut String, key: &Key, name: &str, indent: usize) {
    for line in key.doc {
        let _ = writeln!(text, "{:indent$}#{}", "", line.replace('`', ""));
    }
    let mark = if is_unset(key) || is_in_data_dir(key) { "# " } else { "" };
    let _ = writeln!(text, "{:indent$}{mark}{name}: {}", "", key.default);
}

/// Whether the default is the absence of a value.
fn is_unset(key: &Key) -> bool {
    key.default == "\"\""
}

/// Whether the default is a file in the data directory.
fn is_in_data_dir(key: &Key) -> bool {
    key.type_name == "PathBuf"
}
