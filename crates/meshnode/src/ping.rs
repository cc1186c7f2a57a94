//! `meshnode ping`.

use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args};
use mesh_cli::Output;
use mesh_node::loopback::PingResult;
use tokio::time::{Instant, sleep_until};

use crate::client::LocalClient;

/// How far apart pings begin.
const EVERY: Duration = Duration::from_secs(1);

/// How long one ping may take, which the daemon itself ends after 5 s.
const ANSWER_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The peer's name or address
    peer: String,
    /// Most pings; 0 does not end
    #[arg(short, long, default_value_t = 10)]
    count: u32,
    /// Whether to end as soon as there is a direct way
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    until_direct: bool,
    /// Ping the peer's IP stack, through the tunnel and past its packet filter
    #[arg(long, conflicts_with = "icmp")]
    tsmp: bool,
    /// Ping as any machine does, through the tunnel and the peer's packet filter
    #[arg(long)]
    icmp: bool,
}

impl PingArgs {
    pub(crate) async fn run(self, client: &LocalClient, output: Output) -> anyhow::Result<()> {
        let ip = client.resolve(&self.peer).await?;
        let kind = match (self.tsmp, self.icmp) {
            (true, _) => "TSMP",
            (false, true) => "ICMP",
            (false, false) => "disco",
        };
        let (mut answered, mut sent) = (0, 0);
        let mut next_at = Instant::now();
        while self.count == 0 || sent < self.count {
            sleep_until(next_at).await;
            next_at = Instant::now() + EVERY;
            sent += 1;
            let result = client.ping(ip, kind, ANSWER_MAX).await?;
            output.value(&result, || show(&result))?;
            answered += u32::from(result.err.is_empty());
            // What goes through the tunnel does not see the way.
            if self.until_direct && !result.endpoint.is_empty() {
                return Ok(());
            }
        }
        match answered {
            0 => bail!("no answer from {ip}"),
            _ if self.until_direct && kind == "disco" => bail!("no direct way to {ip} was found"),
            _ => Ok(()),
        }
    }
}

fn show(result: &PingResult) -> String {
    if !result.err.is_empty() {
        return format!("no pong from {}: {}", result.ip, result.err);
    }
    let way = match (result.endpoint.as_str(), result.derp_region_code.as_str()) {
        ("", "") => String::new(),
        ("", code) => format!(" via DERP({code})"),
        (endpoint, _) => format!(" via {endpoint}"),
    };
    let name = result.node_name.trim_end_matches('.');
    let name = name.split('.').next().unwrap_or_default();
    format!("pong from {name} ({}){way} in {:.1} ms", result.node_ip, result.latency_seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_tells_its_way() {
        let pong = PingResult {
            ip: "100.64.0.2".to_owned(),
            node_ip: "100.64.0.2".to_owned(),
            node_name: "web.example.".to_owned(),
            latency_seconds: 0.012_34,
            ..PingResult::default()
        };
        assert_eq!(show(&pong), "pong from web (100.64.0.2) in 12.3 ms");
        let relayed = PingResult { derp_region_code: "fra".to_owned(), ..pong.clone() };
        assert_eq!(show(&relayed), "pong from web (100.64.0.2) via DERP(fra) in 12.3 ms");
        let direct = PingResult { endpoint: "192.0.2.1:41641".to_owned(), ..pong.clone() };
        assert_eq!(show(&direct), "pong from web (100.64.0.2) via 192.0.2.1:41641 in 12.3 ms");
        let failed = PingResult { err: "no answer".to_owned(), ..pong };
        assert_eq!(show(&failed), "no pong from 100.64.0.2: no answer");
    }
}
