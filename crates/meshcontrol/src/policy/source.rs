//! Files that verbs read.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;

/// The bytes of a file, or of standard input if it is `-`.
pub(super) fn read_bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let outcome = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    outcome.with_context(|| format!("cannot read the policy {}", file.display()))?;
    Ok(bytes)
}
