//! `meshcontrol derp-map`: which relays clients are told of, and whether they can be used.

mod check;
mod probe;
mod region;
mod report;
mod show;
mod source;
mod verdict;
pub(crate) mod x509;

use clap::Subcommand;

use check::CheckArgs;
use show::ShowArgs;

use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum DerpMapVerb {
    /// Ask every node of the map all that clients will ask it, and tell what to mend
    #[command(after_help = "\
Without --file, the map is that of the running server as clients get it; while none runs, that of
derp.urls and derp.paths.

Each node is asked over IPv4 and IPv6: its name, TLS with the certificate that the map says, the
measurement of its latency, a login with a key made for it, STUN, and port 80 if the map says that
it answers. A relay that verifies its clients refuses the login, which is told and no failure.
Then the nodes of each region must reach each other.

The exit code is 1 if any node cannot be used.

Examples:
  meshcontrol derp-map check
  meshcontrol derp-map check --file derp.yaml
  meshcontrol derp-map check --region 900 --output json")]
    Check(CheckArgs),
    /// Show the map as clients get it
    #[command(after_help = "\
Without --file, the map is that of the running server as clients get it; while none runs, that of
derp.urls and derp.paths. In JSON and YAML it has the form of such a file.

Examples:
  meshcontrol derp-map show
  meshcontrol derp-map show --file derp.yaml --output json")]
    Show(ShowArgs),
}

impl DerpMapVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Check(args) => args.run(session).await,
            Self::Show(args) => args.run(session).await,
        }
    }
}
