//! The one place that reads the configuration file, the environment and the platform's paths.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use thiserror::Error;

use crate::layers::{Override, Source, VARIABLE_PREFIX};
use crate::load::CONFIG_BYTES_MAX;

/// Names the configuration file when no flag does.
const CONFIG_VARIABLE: &str = "MESHCONTROL_CONFIG";

/// Names the data directory when no flag does.
const DATA_DIR_VARIABLE: &str = "MESHCONTROL_DATA_DIR";

/// The data directory of a server that root runs on Linux.
const SYSTEM_DATA_DIR: &str = "/var/lib/meshcontrol";

/// Why the layers could not be gathered.
#[derive(Debug, Error)]
pub enum GatherError {
    /// The configuration file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is longer than [`CONFIG_BYTES_MAX`].
    #[error("the configuration {} is longer than {CONFIG_BYTES_MAX} bytes", path.display())]
    ConfigTooLong {
        /// The file.
        path: PathBuf,
    },
    /// The value of one of our variables is not UTF-8.
    #[error("the environment variable {variable} is not UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: String,
    },
    /// There is no home directory to find the data directory in.
    #[error("cannot tell where to keep data; give --data-dir or {DATA_DIR_VARIABLE}")]
    NoDataDir,
}

/// Reads the configuration file and the environment, and finds the data directory.
///
/// `config` and `data_dir` are what the command line says; without them `MESHCONTROL_CONFIG` and
/// `MESHCONTROL_DATA_DIR` count, then no file and [`default_data_dir`]. Creates nothing.
pub fn gather(
    config: Option<&Path>,
    data_dir: Option<&Path>,
    overrides: Vec<Override>,
) -> Result<Source, GatherError> {
    let environment = environment()?;
    let named = |wanted: &str| {
        let found = environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    let config = config.map(Path::to_owned).or_else(|| named(CONFIG_VARIABLE));
    let file = match config {
        Some(path) => Some((path.clone(), read(path)?)),
        None => None,
    };
    let data_dir = match data_dir.map(Path::to_owned).or_else(|| named(DATA_DIR_VARIABLE)) {
        Some(data_dir) => data_dir,
        None => default_data_dir()?,
    };
    Ok(Source { file, environment, overrides, data_dir })
}

/// Where data lives by the platform's convention: `/var/lib/meshcontrol` for root on Linux, else
/// below the user's data directory, `$XDG_DATA_HOME` or `~/.local/share` on Linux.
pub fn default_data_dir() -> Result<PathBuf, GatherError> {
    if is_root_on_linux() {
        return Ok(PathBuf::from(SYSTEM_DATA_DIR));
    }
    let strategy =
        etcetera::base_strategy::choose_native_strategy().map_err(|_| GatherError::NoDataDir)?;
    Ok(strategy.data_dir().join("meshcontrol"))
}

/// The owner of a process's directory in /proc is its effective user (proc(5)).
#[cfg(target_os = "linux")]
fn is_root_on_linux() -> bool {
    use std::os::unix::fs::MetadataExt as _;

    std::fs::metadata("/proc/self").is_ok_and(|directory| directory.uid() == 0)
}

#[cfg(not(target_os = "linux"))]
fn is_root_on_linux() -> bool {
    false
}

/// Our variables; those of others are nobody's business here.
fn environment() -> Result<Vec<(String, String)>, GatherError> {
    env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(VARIABLE_PREFIX).then_some((name, value))
        })
        .map(|(variable, value)| match value.into_string() {
            Ok(value) => Ok((variable, value)),
            Err(_) => Err(GatherError::NotUtf8 { variable }),
        })
        .collect()
}

fn read(path: PathBuf) -> Result<String, GatherError> {
    match read_bounded(&path) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(GatherError::ConfigTooLong { path }),
        Err(source) => Err(GatherError::ReadConfig { path, source }),
    }
}

/// The file's text; `None` if it is longer than we take.
fn read_bounded(path: &Path) -> io::Result<Option<String>> {
    let bytes_max = u64::try_from(CONFIG_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Ok(None);
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
