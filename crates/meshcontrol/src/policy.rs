//! `meshcontrol policy`: who may reach whom.

#[cfg(test)]
mod conformance;
mod eval;
mod source;
mod topology;
mod views;

use clap::Subcommand;

use self::eval::EvalArgs;
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Work out what a policy makes of a tailnet that a file describes; needs no server
    #[command(after_help = "\
Example:
  meshcontrol policy eval --policy policy.hujson --topology tailnet.json")]
    Eval(EvalArgs),
}

impl PolicyVerb {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Eval(args) => args.run(),
        }
    }
}
