//! Open files: each node is one.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open besides the connections, with some to spare for those that are just being closed.
const FILES_BESIDES: u64 = 100;

/// Lets us have as many files open as `nodes` need.
///
/// # Errors
/// The system does not allow so many.
pub(crate) fn raise_file_limit(nodes: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let needed = u64::try_from(nodes)?.saturating_add(FILES_BESIDES);
    ensure!(
        allowed.is_none_or(|allowed| allowed >= needed),
        "{nodes} nodes need {needed} open files, and {} are allowed: raise the limit (ulimit -n)",
        allowed.unwrap_or(u64::MAX),
    );
    Ok(())
}
