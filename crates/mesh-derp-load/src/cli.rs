//! The command line.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

const LONG_ABOUT: &str = "\
Measures a DERP relay: many clients in one thread, cheaper than any relay.

Every packet carries its number and the time it was sent at, so that loss, order and latency are known. A line of JSON tells \
each case. The relay should have a core of its own, and no other work.";

const WORKLOADS: &str = "\
Workloads:
  throughput  pairs in a closed loop, 24 packets under way each: 10 and 100 pairs of 1400 B, 10 pairs of 64 B
  load        three quarters of what the relay can do, and how long packets take
  overload    two and a half times what the relay can do, 50 senders to 5 and to 50 receivers
  login       2000 clients log in, 32 at a time; what that costs, and what they take while they rest
  storm       2000 clients come at once
  slow        10 receivers that read nothing, beside 10 pairs that do
  mesh        10 pairs across two relays of one mesh: name the second by another --relay
  hostile     200 clients a second that break every rule, then 10,000 half-open connections; how others fare";

/// Measures a DERP relay: many clients in one thread, cheaper than any relay.
#[derive(Debug, Parser)]
#[command(version, long_about = LONG_ABOUT, after_help = WORKLOADS)]
pub(crate) struct Cli {
    /// Where the relay speaks TLS; given twice for a mesh of two.
    #[arg(long, required = true, value_name = "ADDR")]
    pub(crate) relay: Vec<SocketAddr>,
    /// The relay's host name, for its certificate; any certificate will do.
    #[arg(long, default_value = "127.0.0.1", value_name = "NAME")]
    pub(crate) host: String,
    /// Process of the relay on this machine, to tell what it spends; one for each relay.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Core to stay on.
    #[arg(long)]
    pub(crate) core: Option<usize>,
    /// What to do, in this order.
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(crate) workload: Vec<Workload>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
}

/// What can be done with a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    Throughput,
    Load,
    Overload,
    Login,
    Storm,
    Slow,
    Mesh,
    Hostile,
}
