//! The command line: the verbs of Tailscale's client, as far as the bundled node has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mesh_cli::Output;

use crate::forward::{ForwardArgs, ServeSocks5Args};
use crate::nc::NcArgs;
use crate::ping::PingArgs;
use crate::status::{IpArgs, StatusArgs};
use crate::up::UpArgs;
use crate::whois::WhoisArgs;

/// A node of a tailnet, without root and without a network interface: other programs use it through `forward`,
/// `serve-socks5` and `nc`. Or as root with one, through which all programs are in the tailnet: `up --tun`.
#[derive(Debug, Parser)]
#[command(
    name = "meshnode",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  meshnode up --login-server https://control.example.com --auth-key tskey-auth-...
  meshnode status
  meshnode forward 8080 web:80

`up` starts a daemon, which keeps its keys and a socket in the state directory; the other verbs
speak to it there. For a second node on the same machine, choose another directory:
  meshnode --state-dir /tmp/other up --login-server https://control.example.com

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon runs."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Where the node's keys and the socket are: one directory for each node [default: /var/lib/meshnode for root, else
    /// meshnode in the user's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "MESHNODE_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Form of what is printed, errors too
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    output: Output,
    /// The same as --output json
    #[arg(long, global = true)]
    json: bool,
}

impl GlobalArgs {
    /// The form of what is printed.
    pub(crate) fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the daemon and join the tailnet; waits until the node is up
    #[command(after_help = "\
Examples:
  meshnode up --login-server https://control.example.com --auth-key tskey-auth-...
  meshnode up --auth-key file:/run/secrets/key --hostname web --advertise-tags tag:web
  meshnode up
  meshnode up --foreground
  meshnode up --tun

The daemon goes on in the background until `meshnode down`, and logs to meshnode.log in the state
directory. Without an auth key, `up` shows where to log in and waits for that. Settings are
remembered, the auth key is not: once the node has joined, `meshnode up` is enough.

What policy lets peers open to this node reaches the same port of the loopback interface of this
machine, unless there is --shields-up; and what they open to a subnet that is routed goes there.

With --tun there is a network interface with the node's addresses. Programs then reach peers by
their addresses, with --accept-routes also the subnets that peers route, and peers reach what
listens on the interface. It needs root or CAP_NET_ADMIN, and goes away with the daemon.")]
    Up(UpArgs),
    /// End the daemon; the node stays in the tailnet, offline
    #[command(after_help = "\
Example:
  meshnode down")]
    Down,
    /// Leave the tailnet: forget the node's key, and end the daemon
    #[command(after_help = "\
Example:
  meshnode logout")]
    Logout,
    /// Show the node and its peers
    #[command(after_help = "\
Examples:
  meshnode status
  meshnode status --json --peers=false")]
    Status(StatusArgs),
    /// Show the addresses of this node, or of a peer
    #[command(after_help = "\
Examples:
  meshnode ip -4
  meshnode ip web")]
    Ip(IpArgs),
    /// Ping a peer until there is a direct way to it
    #[command(after_help = "\
Examples:
  meshnode ping web
  meshnode ping --until-direct=false --count 3 100.64.0.2")]
    Ping(PingArgs),
    /// Show who has an address: the node, its owner, and what policy lets it do here
    #[command(after_help = "\
Examples:
  meshnode whois 100.64.0.2:41234
  meshnode whois web")]
    Whois(WhoisArgs),
    /// Show what the network around the node is like, and how far the relays are
    #[command(after_help = "\
Example:
  meshnode netcheck")]
    Netcheck,
    /// Connect standard input and output to a port of a peer
    #[command(after_help = "\
Example:
  meshnode nc web 80")]
    Nc(NcArgs),
    /// Listen on a port of this machine and connect whoever comes to a port of a peer
    #[command(after_help = "\
Examples:
  meshnode forward 8080 web:80
  meshnode forward 127.0.0.1:5432 100.64.0.2:5432")]
    Forward(ForwardArgs),
    /// Be a SOCKS5 proxy into the tailnet for programs on this machine
    #[command(after_help = "\
Examples:
  meshnode serve-socks5
  meshnode serve-socks5 --listen 127.0.0.1:1055

Names must reach the proxy as they are, which programs call socks5h:
  curl --proxy socks5h://127.0.0.1:1080 http://web")]
    ServeSocks5(ServeSocks5Args),
}

#[cfg(test)]
mod tests;
