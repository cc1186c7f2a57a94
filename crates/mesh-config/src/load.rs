//! From all layers to a checked configuration.

use std::path::{Path, PathBuf};

use crate::document::{self, Node, SyntaxError};
use crate::finding::{Finding, Problems, Report};
use crate::key::Section;
use crate::layers::{Layers, Source};
use crate::reader::Reader;
use crate::sections::Config;
use crate::survey::survey;

/// The longest configuration file that is read, in bytes: headscale's annotated example has 17 KB.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Reads and checks a configuration.
///
/// Gives it together with the warnings, in the order of the file.
///
/// # Errors
/// All problems at once, each with its place. If the file is not YAML, that and the faults in the
/// other layers; what depends on several keys is not checked then.
pub fn load(source: &Source) -> Result<(Config, Vec<Finding>), Problems> {
    let mut report = Report::new(source.file.as_ref().map(|(path, _)| path.clone()));
    let document = match source.file.as_ref().map(|(_, text)| parse_file(text)) {
        None => Some(Node::nothing()),
        Some(Ok(document)) => Some(document),
        Some(Err(error)) => {
            let origin = report.in_file(error.position);
            let finding = Finding { origin, path: String::new(), message: error.message };
            report.fault(None, finding);
            None
        }
    };
    let is_whole = document.is_some();
    let layers = Layers::new(source, document.unwrap_or_else(Node::nothing));
    let keys = Config::keys();
    survey(&keys, &layers, &mut report);
    let mut reader = Reader { keys: &keys, layers: &layers, report };
    let config = Config::read(&mut reader);
    let mut report = reader.report;
    if is_whole {
        config.check(&mut report);
    }
    report.finish(config)
}

fn parse_file(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > CONFIG_BYTES_MAX {
        let message = format!("the file is longer than {CONFIG_BYTES_MAX} bytes");
        return Err(SyntaxError { position: None, message });
    }
    document::parse(text)
}

/// Reads the text of a `config.yaml` with nothing beside it; never panics, whatever the text.
pub fn parse(text: &str) -> Result<(Config, Vec<Finding>), Problems> {
    load(&Source {
        file: Some((PathBuf::from("config.yaml"), text.to_owned())),
        data_dir: PathBuf::from("/var/lib/meshcontrol"),
        ..Source::default()
    })
}

impl Config {
    /// The configuration of a server that nobody configured, its files in `data_dir`.
    ///
    /// # Panics
    /// When `data_dir` is too long for the path of a unix socket.
    pub fn defaults(data_dir: &Path) -> Self {
        let source = Source { data_dir: data_dir.to_owned(), ..Source::default() };
        load(&source).expect("invariant: the defaults are a working configuration").0
    }
}
