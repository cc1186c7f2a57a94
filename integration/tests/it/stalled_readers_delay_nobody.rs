//! One in ten clients stops to read its map stream: the others hear of changes as soon as before, and the server
//! holds no more than its bound for each that stalls.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Crowd, Lab, Server, Setup, Stalled, nodes};
use tokio::time::sleep;

scenario!(stall, alone);

/// How many clients there are by default, those that stall included.
const CLIENTS: usize = 200;

/// One in so many stalls.
const STALLED_EVERY: usize = 10;

/// How many changes are measured each time, one after the other.
const CHANGES: u16 = 30;

/// Pause between two changes, so that each is told by itself.
const PAUSE: Duration = Duration::from_millis(300);

/// How often everybody's packet filter changes, so that the stalled readers have much to read.
const EDITS: usize = 8;

/// How many ports each policy opens.
const PORTS: usize = 300;

/// The most that the server may hold for one stalled reader.
const STALLED_BYTES_MAX: u64 = 256 << 10;

/// What a server's memory may vary by of itself.
const MEMORY_NOISE: u64 = 48 << 20;

/// How much later nearly everybody may hear of a change, in percent, and what is below the noise of a shared machine.
const SLOWER_PERCENT_MAX: u32 = 20;
const TIME_NOISE: Duration = Duration::from_millis(25);

async fn stall(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let clients = nodes(CLIENTS);
    let stalling = clients / STALLED_EVERY;
    let crowd = Crowd::join(&dialer, &key, "reader", clients - stalling).await?;
    let idle = Crowd::join(&dialer, &key, "idle", stalling).await?;
    edit(&server, 0..EDITS).await?;
    let before = p99(&crowd, 10_000).await?;
    let memory_before = server.usage().await?.resident_bytes;
    drop(idle);

    let stalled = Stalled::join(&dialer, &key, "stalled", stalling).await?;
    edit(&server, EDITS..2 * EDITS).await?;
    let meanwhile = p99(&crowd, 20_000).await?;
    let memory = server.usage().await?.resident_bytes;
    eprintln!(
        "{} readers, {stalling} stalled: p99 {before:.1?} before, {meanwhile:.1?} meanwhile; memory {} KiB before, {} \
         KiB meanwhile",
        crowd.len(),
        memory_before / 1024,
        memory / 1024,
    );
    ensure!(crowd.streams_lost() == 0, "{} map streams ended", crowd.streams_lost());
    let slowest = before + before * SLOWER_PERCENT_MAX / 100 + TIME_NOISE;
    ensure!(meanwhile <= slowest, "p99 went from {before:?} to {meanwhile:?}");
    let bound = memory_before + stalling as u64 * STALLED_BYTES_MAX + MEMORY_NOISE;
    ensure!(memory <= bound, "memory went from {memory_before} to {memory} bytes");
    drop(stalled);
    drop(crowd);
    server.stop().await
}

/// Puts policies in force, one after the other, which all have everybody's packet filter different.
async fn edit(server: &Server<'_>, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        let ports = (0..PORTS).map(|port| format!("\"*:{}\"", 1000 + number + 7 * port));
        let ports: Vec<String> = ports.collect();
        let rule =
            format!(r#"{{"action": "accept", "src": ["*"], "dst": [{}]}}"#, ports.join(", "));
        server.set_policy(&format!(r#"{{"acls": [{rule}]}}"#)).await?;
    }
    Ok(())
}

/// By when 99 in 100 clients hear of a change: the median over some changes, for others use the machine too.
async fn p99(crowd: &Crowd, first_port: u16) -> Result<Duration> {
    let mut p99s = Vec::new();
    for change in 0..CHANGES {
        sleep(PAUSE).await;
        let times = crowd.heard(usize::from(change) % crowd.len(), first_port + change).await?;
        p99s.push(times[times.len() * 99 / 100]);
    }
    p99s.sort_unstable();
    Ok(p99s[p99s.len() / 2])
}
