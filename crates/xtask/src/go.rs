//! The Go toolchain, which builds the stock Tailscale clients of the integration scenarios.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{at_root, execute, find, output};

/// The oldest Go that builds the newest client we test with, as (major, minor).
const VERSION_MIN: (u32, u32) = (1, 26);

/// Where Go's own installer puts it, for those who did not extend `PATH`.
const INSTALLED: &str = "/usr/local/go/bin/go";

/// Go's relay, and the module that has it among its tools.
const DERPER: &str = "tailscale.com/cmd/derper";
const DERPER_MODULE: &str = "integration/tsnet";

/// A Go toolchain that is new enough.
#[derive(Debug)]
pub(crate) struct Go {
    program: PathBuf,
}

impl Go {
    /// Looks in `PATH`, then where Go's installer puts it.
    ///
    /// # Errors
    /// When there is none or it is too old; the message says where to get one.
    pub(crate) fn find() -> Result<Self> {
        let installed = || Some(PathBuf::from(INSTALLED)).filter(|path| path.is_file());
        let (major, minor) = VERSION_MIN;
        let Some(program) = find("go").or_else(installed) else {
            bail!("Go is not installed: get {major}.{minor} or newer from https://go.dev/dl/");
        };
        let answer = output(Command::new(&program).args(["env", "GOVERSION"]))?;
        let version = parse_version(&answer)
            .with_context(|| format!("cannot read the Go version {answer:?}"))?;
        if version < VERSION_MIN {
            bail!("{answer} is too old: get {major}.{minor} or newer from https://go.dev/dl/");
        }
        println!("Go: {answer} at {}", program.display());
        Ok(Self { program })
    }

    /// Builds the program in `package`, a folder of the checkout with its own `go.mod`, as `binary`.
    ///
    /// # Errors
    /// When it does not build. The toolchain that is there is used; it fetches no other.
    pub(crate) fn build(&self, package: &str, binary: &Path) -> Result<()> {
        self.make(&["build", "-C", package, "-buildvcs=false"], ".", binary)
    }

    /// Builds Go's relay as `binary`.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn build_derper(&self, binary: &Path) -> Result<()> {
        self.make(&["build", "-C", DERPER_MODULE, "-buildvcs=false"], DERPER, binary)
    }

    /// Builds the tests of `import`, a package that the module in the folder `module` uses, as `binary`.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn build_tests(&self, module: &str, import: &str, binary: &Path) -> Result<()> {
        self.make(&["test", "-C", module, "-c"], import, binary)
    }

    fn make(&self, words: &[&str], package: &str, binary: &Path) -> Result<()> {
        let mut command = at_root(&self.program);
        command.args(words).arg("-o").arg(binary).arg(package);
        execute(command.env("GOTOOLCHAIN", "local"))
    }
}

/// Reads `go1.26.8` as (1, 26).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests;
