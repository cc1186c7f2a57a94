//! A relay of its own for trying things out: `cargo run -p mesh-relay --example relay -- 192.0.2.1:3443`.
//!
//! It serves DERP by TCP and STUN by UDP on that address, lets everybody in, and prints the node to put into
//! a DERP map. Key and certificate are new at every start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Certificate, Relay, generate_self_signed};
use tokio_util::sync::CancellationToken;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example talks to people")]
#[expect(clippy::disallowed_methods, reason = "an example has the system's time and no other")]
async fn main() -> anyhow::Result<()> {
    let addr = std::env::args().nth(1).context("usage: relay ADDRESS:PORT")?;
    let addr: SocketAddr = addr.parse().context("not an address with a port")?;
    let (host, now, cancel) = (addr.ip().to_string(), SystemTime::now(), CancellationToken::new());

    let everybody = Arc::new(|_: &NodePublic| true);
    let relay = Relay::new(DerpPrivate::generate()?, everybody, cancel.clone());
    let certificate = Certificate::from_pem(&generate_self_signed(&host, now)?)?;
    let pin = certificate.pin().context("a chain has no pin")?;
    let tls = certificate.server_config(&relay.public_key(), now)?;
    let derp = relay.spawn_tls_listener(addr, tls).await?;
    let stun = relay.spawn_stun_listener(derp.local_addr()).await?;

    let port = derp.local_addr().port();
    println!(
        r#"{{"Name":"900a","RegionID":900,"HostName":"{host}","CertName":"{pin}","DERPPort":{port},"STUNPort":{port}}}"#
    );
    tokio::signal::ctrl_c().await?;
    cancel.cancel();
    derp.stopped().await;
    stun.stopped().await;
    println!("{:#?}", relay.stats());
    Ok(())
}
