//! `meshnode forward` and `meshnode serve-socks5`: ports of this machine that lead into the tailnet.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use mesh_cli::Output;
use mesh_node::loopback::{self, socks5};
use reqwest::{StatusCode, Upgraded};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::client::{LocalClient, Refused};

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// The port to listen on, of the loopback interface unless an address stands before it; 0 takes a free one
    #[arg(value_name = "[ADDRESS:]PORT", value_parser = parse_local)]
    local: SocketAddr,
    /// Where to connect whoever comes
    #[arg(value_name = "PEER:PORT")]
    to: Destination,
}

impl ForwardArgs {
    pub(crate) async fn run(self, client: LocalClient, output: Output) -> anyhow::Result<()> {
        let Self { local, to } = self;
        let (listener, local) = listen(local).await?;
        output.value(&json!({ "listening": local, "to": to.to_string() }), || {
            format!("Listening on {local} for {to}")
        })?;
        let handle = |stream| forward(client.clone(), to.clone(), stream);
        match loopback::serve_each(listener, handle).await {}
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeSocks5Args {
    /// The address to listen on. Whoever reaches it may use the node: there is no password
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_local, default_value = "127.0.0.1:1080")]
    listen: SocketAddr,
}

impl ServeSocks5Args {
    pub(crate) async fn run(self, client: LocalClient, output: Output) -> anyhow::Result<()> {
        let (listener, local) = listen(self.listen).await?;
        output.value(&json!({ "listening": local }), || format!("SOCKS5 on {local}"))?;
        match loopback::serve_each(listener, |stream| proxy(client.clone(), stream)).await {}
    }
}

async fn listen(local: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(local).await;
    let listener = listener.with_context(|| format!("cannot listen on {local}"))?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

async fn forward(client: LocalClient, to: Destination, mut stream: TcpStream) {
    match client.dial(&to.host, to.port).await {
        // What breaks a connection concerns the two ends of it.
        Ok(mut peer) => drop(copy_bidirectional(&mut stream, &mut peer).await),
        Err(error) => mesh_cli::tell(&format!("Not connected to {to}: {error:#}")),
    }
}

async fn proxy(client: LocalClient, stream: TcpStream) {
    let dial = async |to: String| -> Result<Upgraded, socks5::Reply> {
        let to: Destination = to.parse().map_err(|_| socks5::Reply::HostUnreachable)?;
        client.dial(&to.host, to.port).await.map_err(|error| reply(&error))
    };
    // Clients of all kinds come and go, and are told why they are not connected.
    drop(socks5::serve(stream, None, dial).await);
}

/// What a SOCKS5 client is told when the daemon does not connect it.
fn reply(error: &anyhow::Error) -> socks5::Reply {
    match error.downcast_ref::<Refused>().map(|refused| refused.status) {
        Some(StatusCode::NOT_FOUND) => socks5::Reply::HostUnreachable,
        Some(StatusCode::BAD_GATEWAY) => socks5::Reply::ConnectionRefused,
        Some(StatusCode::GATEWAY_TIMEOUT) => socks5::Reply::TimedOut,
        Some(_) | None => socks5::Reply::GeneralFailure,
    }
}

/// A port of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    host: String,
    port: u16,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it looks like `web:80`, `100.64.0.2:80` or `[fd7a::1]:80`";
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare {
            None if host.is_empty() || host.contains(':') => Err(wrong),
            _ => Ok(Self { host: bare.unwrap_or(host).to_owned(), port }),
        }
    }
}

fn parse_local(text: &str) -> Result<SocketAddr, &'static str> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| "it looks like `8080` or `127.0.0.1:8080`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_names_and_addresses_with_a_port() {
        let parse = |text: &str| text.parse::<Destination>().map(|to| (to.host, to.port));
        assert_eq!(parse("web:80"), Ok(("web".to_owned(), 80)));
        assert_eq!(parse("100.64.0.2:80"), Ok(("100.64.0.2".to_owned(), 80)));
        assert_eq!(parse("[fd7a::1]:80"), Ok(("fd7a::1".to_owned(), 80)));
        for wrong in ["web", ":80", "web:0", "web:99999", "fd7a::1:80", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_for_this_machine_alone() {
        assert_eq!(parse_local("8080"), Ok("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(parse_local("0.0.0.0:8080"), Ok("0.0.0.0:8080".parse().unwrap()));
        assert!(parse_local("web:8080").is_err());
    }
}
