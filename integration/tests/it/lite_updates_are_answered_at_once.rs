//! A starting client makes some lite updates in a row and waits for each; the server does not keep it waiting.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};

scenario!(update, alone);

/// What a client logs of an update that was answered, before the time it took.
const ANSWERED: &str = "successful lite map update in ";
/// headscale takes 500 ms.
const ANSWER_MAX_MS: f64 = 100.0;

async fn update(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    for (name, client) in [("alpha", Client::Tsnet), ("beta", Client::TsnetOld)] {
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?;
        let times = eventually(Duration::from_secs(10), "two lite updates", async || {
            let times = update_times_ms(&node.log()?)?;
            ensure!(times.len() >= 2, "only {times:?}");
            Ok(times)
        })
        .await?;
        ensure!(times.iter().all(|ms| *ms < ANSWER_MAX_MS), "{name} waited {times:?} ms");
    }
    Ok(())
}

fn update_times_ms(log: &str) -> Result<Vec<f64>> {
    log.split(ANSWERED)
        .skip(1)
        .map(|rest| {
            let time = rest.split_whitespace().next().unwrap_or_default();
            parse_ms(time).with_context(|| format!("not a time: {time:?}"))
        })
        .collect()
}

/// Reads a duration as Go prints it, up to a minute: `1.5s`, `12ms`, `874µs`.
fn parse_ms(text: &str) -> Option<f64> {
    let units = [("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6), ("s", 1e3)];
    units.iter().find_map(|(unit, ms)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * ms))
}
