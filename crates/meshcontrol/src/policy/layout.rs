//! `meshcontrol policy fmt`: lays a policy out.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::source::{located, read_text};

#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    /// The policy; default: standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write it back instead of printing it
    #[arg(short, long, requires = "file")]
    write: bool,
}

impl FmtArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let file = self.file.as_deref().unwrap_or(Path::new("-"));
        let text = read_text(file)?;
        let laid_out =
            mesh_policy::format(&text).map_err(|problems| anyhow!(located(file, &problems)))?;
        if !self.write {
            return mesh_cli::print(laid_out.as_bytes());
        }
        if laid_out != text {
            std::fs::write(file, laid_out)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
