//! `meshcontrol policy`: who may reach whom.

mod check;
#[cfg(test)]
mod conformance;
mod eval;
mod layout;
mod source;
mod told;
mod topology;
mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use mesh_cli::{Output, instant, table};
use mesh_policy::CompiledPolicy;
use mesh_server::api::v1::{PolicyAnswer, PolicyVersionHead, PolicyVersionList};
use serde_json::json;

use self::check::CheckArgs;
use self::eval::EvalArgs;
use self::layout::FmtArgs;
use self::source::{parse, read_text};
use self::told::Told;
use self::topology::Topology;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Print the policy as it was written
    #[command(visible_aliases = ["show", "view", "fetch"], after_help = "\
Examples:
  meshcontrol policy get > policy.hujson
  meshcontrol policy get --version 3")]
    Get {
        /// An earlier version, as `policy versions` numbers them
        #[arg(long, value_name = "ID")]
        version: Option<u64>,
    },
    /// Show the versions of the policy that are kept; the last one is in force
    #[command(
        visible_alias = "history",
        after_help = "\
Example:
  meshcontrol policy versions"
    )]
    Versions,
    /// Replace the policy, unless it is wrong or one of its tests fails
    #[command(visible_aliases = ["put", "update"], after_help = "\
Examples:
  meshcontrol policy set --file policy.hujson
  meshcontrol policy set --file -")]
    Set {
        /// The policy; `-` is standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Tell all that is wrong with a policy, and run its tests; nothing is saved
    #[command(after_help = "\
Examples:
  meshcontrol policy check --file policy.hujson
  meshcontrol policy check --file policy.hujson --topology tailnet.json

Only its tests need a tailnet: that of the server if one answers, or that of a topology file.")]
    Check(CheckArgs),
    /// Run the tests of the policy in force, or of another one, and report on each
    #[command(after_help = "\
Examples:
  meshcontrol policy test
  meshcontrol policy test --file policy.hujson")]
    Test {
        /// A policy that is not in force; `-` is standard input
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Say which rules let one reach another, or why none does
    #[command(after_help = "\
Examples:
  meshcontrol policy explain alice@example.com tag:web:443
  meshcontrol policy explain laptop 10.1.2.3:53 --proto udp
  meshcontrol policy explain group:dev db --file policy.hujson")]
    Explain {
        /// Who connects: a node, user, group, tag, host or address
        src: String,
        /// To what, and to which port; without one, to any
        #[arg(value_name = "DST[:PORT]")]
        dst: String,
        /// Over which protocol: a name or a number; default: TCP, UDP and ICMP
        #[arg(long)]
        proto: Option<String>,
        /// Ask about a policy that is not in force; `-` is standard input
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show who would gain and who would lose what by another policy; nothing is saved
    #[command(after_help = "\
Examples:
  meshcontrol policy diff --file policy.hujson
  meshcontrol policy diff --file new.hujson --policy old.hujson --topology tailnet.json")]
    Diff {
        /// The other policy; `-` is standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// The policy to compare with, instead of the one in force
        #[arg(long, value_name = "FILE", requires = "topology")]
        policy: Option<PathBuf>,
        /// A tailnet from a file, instead of the server's
        #[arg(long, value_name = "FILE", requires = "policy")]
        topology: Option<PathBuf>,
    },
    /// Lay a policy out: comments stay, white space follows rules
    #[command(after_help = "\
Examples:
  meshcontrol policy fmt --file policy.hujson
  meshcontrol policy fmt --file policy.hujson --write")]
    Fmt(FmtArgs),
    /// Work out what a policy makes of a tailnet that a file describes; needs no server
    #[command(after_help = "\
Example:
  meshcontrol policy eval --policy policy.hujson --topology tailnet.json")]
    Eval(EvalArgs),
}

impl PolicyVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let output = session.output();
        match self {
            Self::Get { version } => get(session, version).await,
            Self::Versions => {
                let PolicyVersionList { versions } =
                    session.client()?.get(&["policy", "versions"], &[]).await?;
                output.value(&versions, || versions_table(&versions))
            }
            Self::Set { file } => {
                let text = read_text(&file)?;
                let set: PolicyAnswer =
                    session.client()?.put_hujson(&["policy"], text.clone()).await?;
                let set = PolicyAnswer { policy: text, ..set };
                output.value(&set, || format!("Policy set: version {}", set.version))
            }
            Self::Check(args) => args.run(session).await,
            Self::Test { file } => {
                let body = json!({ "policy": read_if_named(file.as_deref())? });
                let report: Told = session.client()?.post(&["policy", "test"], &body).await?;
                report.print(output)?;
                anyhow::ensure!(report.passed(), "not all tests passed");
                Ok(())
            }
            Self::Explain { src, dst, proto, file } => {
                let policy = read_if_named(file.as_deref())?;
                let body = json!({ "src": src, "dst": dst, "proto": proto, "policy": policy });
                let told: Told = session.client()?.post(&["policy", "explain"], &body).await?;
                told.print(output)
            }
            Self::Diff { file, policy: Some(policy), topology: Some(topology) } => {
                diff_offline(output, &policy, &file, &topology)
            }
            Self::Diff { file, .. } => {
                let body = json!({ "policy": read_text(&file)? });
                let told: Told = session.client()?.post(&["policy", "diff"], &body).await?;
                told.print(output)
            }
            Self::Fmt(args) => args.run(),
            Self::Eval(args) => args.run(),
        }
    }
}

async fn get(session: &Session, version: Option<u64>) -> anyhow::Result<()> {
    let client = session.client()?;
    let answer: PolicyAnswer = match version {
        Some(id) => client.get(&["policy", "versions", &id.to_string()], &[]).await?,
        None => client.get(&["policy"], &[]).await?,
    };
    if let Some(problem) = &answer.problem {
        mesh_cli::warn(&format!("the policy file as it is now is not in force: {problem}"));
    }
    if session.output() == Output::Table {
        return mesh_cli::print(answer.policy.as_bytes());
    }
    session.output().value(&answer, String::new)
}

fn versions_table(versions: &[PolicyVersionHead]) -> String {
    let row = |version: &PolicyVersionHead| {
        let PolicyVersionHead { id, created_at, created_by, bytes, digest } = version;
        let short_digest = digest.chars().take(12).collect();
        [id.clone(), instant(*created_at), created_by.clone(), bytes.to_string(), short_digest]
    };
    table(["ID", "Set", "By", "Bytes", "Digest"], versions.iter().map(row))
}

/// The text of a file, or nothing, by which the server understands the policy in force.
fn read_if_named(file: Option<&Path>) -> anyhow::Result<String> {
    file.map_or_else(|| Ok(String::new()), read_text)
}

fn diff_offline(output: Output, old: &Path, new: &Path, topology: &Path) -> anyhow::Result<()> {
    let topology = Topology::read(topology)?;
    let compile = |file: &Path| -> anyhow::Result<CompiledPolicy> {
        let policy = parse(file, topology.domains.as_deref())?;
        Ok(topology.compile(Arc::new(policy)))
    };
    Told::of(&compile(old)?.diff(&compile(new)?))?.print(output)
}
