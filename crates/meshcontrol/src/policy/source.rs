//! Files that verbs read.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use mesh_policy::{Policy, Problems};

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

/// The text of a file, or of standard input if it is `-`.
pub(super) fn read_text(file: &Path) -> anyhow::Result<String> {
    String::from_utf8(read_bytes(file)?)
        .with_context(|| format!("the policy {} is not UTF-8", file.display()))
}

/// The policy in a file, or all that is wrong with it.
pub(super) fn parse(file: &Path, domains: Option<&[String]>) -> anyhow::Result<Policy> {
    Policy::parse(&read_text(file)?, domains).map_err(|problems| anyhow!(located(file, &problems)))
}

/// Problems a line each, with the name of the file where editors look for it.
pub(super) fn located(file: &Path, problems: &Problems) -> String {
    let text = problems.to_string();
    let locate = |line: &str| match line.strip_prefix("policy:") {
        Some(problem) => format!("{}:{problem}", file.display()),
        None => line.to_owned(),
    };
    text.lines().map(locate).collect::<Vec<_>>().join("\n")
}
