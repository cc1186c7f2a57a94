//! Asks one node all that clients ask it. What the answers mean is told in `verdict`.

mod http;
mod login;
mod pinned;
mod relay;
mod stun;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::DerpNode;
use rustls::RootCertStore;
use tokio::net::lookup_host;
use tokio::time::timeout;

pub(super) use login::Session;

use super::verdict::{Answer, Failure, Family, Login, Place, Probe, Way, stun_port};

/// How long name service may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long each of TCP, TLS and HTTP may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(4);

/// Asks a node, and keeps the connection if it lets us log in.
pub(super) async fn probe(node: &DerpNode, roots: Arc<RootCertStore>) -> (Probe, Option<Session>) {
    let [v4, v6] = places(node).await;
    let first = [&v4, &v6].into_iter().find_map(address);
    let port_80 = async {
        match first {
            Some(address) if node.can_port_80 => Some(relay::ask_port_80(node, address).await),
            Some(_) | None => None,
        }
    };
    let (v4, v6, port_80) = tokio::join!(
        ask(node, Family::V4, v4, Arc::clone(&roots)),
        ask(node, Family::V6, v6, Arc::clone(&roots)),
        port_80,
    );
    let ways = [v4, v6];
    let is_relay = ways.iter().any(|way| matches!(way.relay, Some(Ok(_))));
    let (login, session) = if is_relay {
        login::log_in(node, roots)
            .await
            .map_or_else(|login| (login, None), |session| (Login::Admitted, Some(session)))
    } else {
        (Login::Untried, None)
    };
    (Probe { ways, login, port_80 }, session)
}

/// Where a node is, by the map or else by its name.
async fn places(node: &DerpNode) -> [Place; 2] {
    let is_looked_up = Family::BOTH.iter().any(|family| family.said(node).is_empty());
    let found = if is_looked_up { look_up(&node.host_name).await } else { Ok(Vec::new()) };
    Family::BOTH.map(|family| match (family.said(node), &found) {
        ("", Ok(found)) => {
            let address = found.iter().find(|address| family.has(address));
            address.map_or(Place::Unnamed, |address| Place::At(*address))
        }
        ("", Err(error)) => Place::Unknown(error.clone()),
        (said, _) => {
            let address = said.parse().ok().filter(|address| family.has(address));
            address.map_or(Place::Disabled, Place::At)
        }
    })
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, String> {
    match timeout(LOOKUP_TIMEOUT, lookup_host((host, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("name service does not answer in time".to_owned()),
    }
}

fn address(place: &Place) -> Option<IpAddr> {
    match place {
        Place::At(address) => Some(*address),
        Place::Disabled | Place::Unnamed | Place::Unknown(_) => None,
    }
}

/// Asks a node in one family.
async fn ask(node: &DerpNode, family: Family, place: Place, roots: Arc<RootCertStore>) -> Way {
    let at = address(&place);
    let relay = async {
        match at {
            Some(address) if !node.stun_only => Some(relay::ask(node, address, roots).await),
            Some(_) | None => None,
        }
    };
    let stun_at = match node.stun_test_ip.parse() {
        Ok(address) => Some(address).filter(|address| family.has(address)),
        Err(_) => at,
    };
    let stun = async { Some(stun::ask((stun_at?, stun_port(node)?).into()).await) };
    let (relay, stun) = tokio::join!(relay, stun);
    Way { family, place, relay, stun }
}

/// Waits for one step of a question.
async fn step<T>(future: impl Future<Output = io::Result<T>>) -> Result<T, Failure> {
    timeout(STEP_TIMEOUT, future)
        .await
        .map_err(|_| Failure::Silent)?
        .map_err(|error| failure(&error))
}

/// What an error of the system says of a node.
fn failure(error: &io::Error) -> Failure {
    let kind = error.kind();
    if kind == ErrorKind::ConnectionRefused {
        Failure::Closed
    } else if kind == ErrorKind::TimedOut {
        Failure::Silent
    } else if matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable) {
        Failure::NoRoute
    } else {
        Failure::Io(error.to_string())
    }
}
