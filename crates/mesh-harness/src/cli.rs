//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mesh_client::ControlUrl;

const LONG_ABOUT: &str = "\
Load harness: thousands of fake nodes against any control server.

Each fake node speaks ts2021 as a stock client does: it dials, registers with a preauth key, opens a map stream, tells \
its endpoints and home region, and comes back with growing pauses when it is cut. The phases named on the command line \
run in order. After each of them every node must see exactly the peers it should; the table says how long that took, \
what the server spent on it until then and until it was quiet again, and what was wrong. The exit code is 0 only if \
nothing was.";

const PHASES: &str = "\
Phases:
  join             all --nodes join, --concurrency at a time
  join-one         one more joins; the others are to see it
  flap             one goes, the others are to see it offline; then it comes back
  endpoints        one has another endpoint; the others are to see it
  reconnect        all are cut at once and come back
  restart-server   --restart-cmd is run; all are to come back
  policy-edit      --policy-cmd is run, then the next --policy-expect holds
  churn=N/s,TIME   N times a second somebody has another endpoint, goes for a second, or is cut
  stall=M          how soon others see changes while M nodes leave their streams unread
  hold=TIME        nothing happens
";

const EXAMPLES: &str = "\
Examples:
  meshharness --url http://127.0.0.1:8080 --keys hskey-auth-... --nodes 300 --server-pid 4711 join
  meshharness --url http://127.0.0.1:8080 --keys nodes.txt --expect peers.txt --json join flap endpoints
  meshharness --url http://127.0.0.1:8080 --keys nodes.txt --nodes 200 --verify-samples 3 join churn=200/s,5m

Files:
  --keys    one node a line: KEY HOSTNAME [TAG,TAG...]
  --expect  one node a line: HOSTNAME PEER PEER ...
            (hostnames that are not in use are passed over)";

/// Load harness: thousands of fake nodes against any control server.
#[derive(Debug, Parser)]
#[command(version, long_about = LONG_ABOUT, after_help = format!("{PHASES}\n{EXAMPLES}"))]
pub(crate) struct Cli {
    /// The control server.
    #[arg(long)]
    pub(crate) url: ControlUrl,
    /// A reusable preauth key, or a file with a line for each node.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) keys: String,
    /// How many nodes join; with a file of keys by default one for each line, but for those of join-one.
    #[arg(long)]
    pub(crate) nodes: Option<usize>,
    /// How many nodes may be joining at the same time; by default all.
    #[arg(long)]
    pub(crate) concurrency: Option<usize>,
    /// Whom each node should see: all others, or what a file says.
    #[arg(long, value_name = "all|FILE", default_value = "all")]
    pub(crate) expect: String,
    /// Pass over peers that are no nodes of this run, as when the server has others too.
    #[arg(long)]
    pub(crate) ignore_others: bool,
    /// The server's process, to tell what it spends: its number, or a file that holds it.
    #[arg(long, value_name = "PID|FILE")]
    pub(crate) server_pid: Option<String>,
    /// Shell command of policy-edit; $EDIT is 1 the first time, then 2, and so on.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) policy_cmd: Option<String>,
    /// Whom each node should see after a policy edit: one file for the first, the next for the second; without one
    /// nothing changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy_expect: Vec<PathBuf>,
    /// Shell command of restart-server: it returns when the server was started again.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) restart_cmd: Option<String>,
    /// So many nodes fold all they are told; after each phase the sum must be what a fresh map says.
    #[arg(long, value_name = "NODES", default_value_t = 1)]
    pub(crate) verify_samples: usize,
    /// What the nodes ask their map streams to be compressed with.
    #[arg(long, default_value = "zstd")]
    pub(crate) compress: Compress,
    /// Most seconds to wait in a phase until all is right, or a change was seen.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) limit: u64,
    /// Most seconds to wait after that until the server is quiet.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) quiet_limit: u64,
    /// The same seed makes the same nodes: a second run with it is one in which they come back.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads of the harness.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// A file of certificates in PEM that the server's must lead to, if the URL is https.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// What to do, in this order.
    #[arg(required = true, value_name = "PHASE")]
    pub(crate) phases: Vec<Phase>,
}

/// Compression of map streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    Zstd,
    None,
}

impl Compress {
    /// As it goes into a map request.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::None => "",
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    Join,
    JoinOne,
    Flap,
    Endpoints,
    Reconnect,
    RestartServer,
    PolicyEdit,
    Churn {
        /// Changes in a second.
        rate: f64,
        time: Duration,
    },
    /// So many nodes stop reading.
    Stall(usize),
    Hold(Duration),
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        Ok(match (name, value) {
            ("join", None) => Self::Join,
            ("join-one", None) => Self::JoinOne,
            ("flap", None) => Self::Flap,
            ("endpoints", None) => Self::Endpoints,
            ("reconnect", None) => Self::Reconnect,
            ("restart-server", None) => Self::RestartServer,
            ("policy-edit", None) => Self::PolicyEdit,
            ("churn", Some(value)) => parse_churn(value)?,
            ("stall", Some(count)) => {
                Self::Stall(count.parse().map_err(|_| format!("{count:?} is no number of nodes"))?)
            }
            ("hold", Some(time)) => Self::Hold(parse_time(time)?),
            _ => return Err("no such phase; --help lists them".to_owned()),
        })
    }
}

/// Reads `200/s,5m`.
fn parse_churn(text: &str) -> Result<Phase, String> {
    let parts = text.split_once("/s,").and_then(|(rate, time)| Some((rate.parse().ok()?, time)));
    let wanted = |(rate, _): &(f64, &str)| rate.is_finite() && *rate > 0.0;
    let (rate, time) =
        parts.filter(wanted).ok_or_else(|| format!("{text:?} is nothing such as 200/s,5m"))?;
    Ok(Phase::Churn { rate, time: parse_time(time)? })
}

/// Reads `30s`, `5m` or `250ms`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    found.ok_or_else(|| format!("{text:?} is no time such as 30s, 5m or 250ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read() {
        assert_eq!("join".parse(), Ok(Phase::Join));
        assert_eq!("hold=250ms".parse(), Ok(Phase::Hold(Duration::from_millis(250))));
        assert_eq!("stall=200".parse(), Ok(Phase::Stall(200)));
        let time = Duration::from_mins(5);
        assert_eq!("churn=0.5/s,5m".parse(), Ok(Phase::Churn { rate: 0.5, time }));
        for text in ["churn", "churn=5", "churn=5/s", "churn=0/s,1s", "churn=x/s,1s", "stall=x"] {
            text.parse::<Phase>().unwrap_err();
        }
        for text in ["", "joins", "join=3", "hold", "hold=3", "hold=-1s", "hold=s"] {
            text.parse::<Phase>().unwrap_err();
        }
    }
}
