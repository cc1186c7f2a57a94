//! What a verb works with: its configuration, its server and its output.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::anyhow;
use mesh_cli::Output;
use mesh_config::{Config, Finding, Override, Setting};

use crate::cli::GlobalArgs;
use crate::client::Client;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    args: GlobalArgs,
}

/// A configuration that was accepted.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Finding>,
    pub(crate) data_dir: PathBuf,
    /// Every key with who gave it.
    pub(crate) settings: Vec<Setting>,
}

impl Session {
    pub(crate) fn new(args: GlobalArgs) -> Self {
        Self { args }
    }

    pub(crate) fn output(&self) -> Output {
        self.args.output
    }

    /// Reads the configuration; flags that set keys are the strongest layer.
    pub(crate) fn load(&self, overrides: Vec<Override>) -> anyhow::Result<Loaded> {
        let args = &self.args;
        let source =
            mesh_config::rim::gather(args.config.as_deref(), args.data_dir.as_deref(), overrides)?;
        let (config, warnings) = mesh_config::load(&source)
            .map_err(|problems| anyhow!("the configuration does not work:\n{problems}"))?;
        let settings = mesh_config::settings(&source);
        Ok(Loaded { config, warnings, data_dir: source.data_dir, settings })
    }

    /// The server that is administered.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.load(Vec::new())?.config)
    }

    /// Asks a person before something is deleted.
    ///
    /// # Errors
    /// When the person says no, or nobody is there to ask.
    pub(crate) fn confirm(&self, question: &str) -> anyhow::Result<()> {
        if self.args.force {
            return Ok(());
        }
        anyhow::ensure!(
            std::io::stdin().is_terminal(),
            "nobody is there to confirm: repeat the command with --force"
        );
        let mut terminal = std::io::stderr().lock();
        write!(terminal, "{question} [y/N] ")?;
        terminal.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        anyhow::ensure!(is_yes, "not confirmed, so nothing was done");
        Ok(())
    }
}
