//! The server is killed in the middle of hundreds of registrations, three times over the same data. Whoever was answered
//! is there afterwards as it was told, nothing exists twice, and who comes again is the same node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use mesh_client::{ControlClient, Dialer};
use mesh_integration::{Lab, NodeRecord, Server, Setup, nodes};
use mesh_keys::{MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, Hostinfo, MapRequest, RegisterAuth, RegisterRequest, SecretText,
};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout};

scenario!(kills, alone);

/// How many machines register in each round by default.
const MACHINES: usize = 500;
const KILLS: usize = 3;

/// So many machines share each hostname, that names have to be made unique in a hurry too.
const NAMESAKES: usize = 10;

/// One in so many machines asks for its map at once; more would hold up the registrations.
const ASK_EVERY: usize = 10;

const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// How long one registration may take among all others.
const ANSWER_MAX: Duration = Duration::from_secs(30);

async fn kills(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut known = Vec::new();
    for _ in 0..KILLS {
        known = kill_once(&server, &key, &known).await?;
    }
    server.stop().await
}

/// Registers machines beside the nodes of earlier rounds, kills the server meanwhile, starts it again, and has
/// all machines come back. Returns all nodes.
async fn kill_once(
    server: &Server<'_>,
    key: &str,
    earlier: &[NodeRecord],
) -> Result<Vec<NodeRecord>> {
    let started_at = Instant::now();
    let machines: Vec<Machine> = (0..nodes(MACHINES)).map(Machine::make).collect::<Result<_>>()?;
    let answered = register_until_killed(server, key, &machines).await?;
    let killed_after = started_at.elapsed();
    server.launch().await?;
    let nodes = server.nodes().await?;
    check_nothing_twice(&nodes)?;
    check_unchanged(earlier, &nodes)?;
    check_as_told(&answered, &nodes)?;
    let unanswered = nodes.len() - earlier.len() - answered.len();

    let dialer = dialer(server)?;
    let again: Vec<Answer> = registrations(&dialer, key, &machines, 1).try_collect().await?;
    let after = server.nodes().await?;
    check_nothing_twice(&after)?;
    check_unchanged(&nodes, &after)?;
    check_as_told(&again, &after)?;
    ensure!(again.len() == machines.len(), "only {} came back", again.len());
    ensure!(after.len() == earlier.len() + machines.len(), "{} nodes", after.len());
    eprintln!(
        "{} of {} answered by a server that lived {killed_after:.2?}; {unanswered} more were on disk; all \
         came back; {:.2?} in all",
        answered.len(),
        machines.len(),
        started_at.elapsed(),
    );
    Ok(after)
}

/// Registers all machines at once and kills the server as soon as some part of them, between one and two thirds,
/// was answered. Returns all answers, those included that were on their way.
async fn register_until_killed(
    server: &Server<'_>,
    key: &str,
    machines: &[Machine],
) -> Result<Vec<Answer>> {
    // The keys are random, and so is any byte of them.
    let random = usize::from(machines[0].node_key.as_bytes()[0]);
    let third = machines.len() / 3;
    let enough = third + third * random / usize::from(u8::MAX);
    let dialer = dialer(server)?;
    let mut registrations = registrations(&dialer, key, machines, ASK_EVERY);
    let mut answered = Vec::new();
    while let Some(answer) = registrations.next().await {
        match answer {
            Ok(answer) => answered.push(answer),
            Err(error) if answered.len() < enough => return Err(error),
            // It is dead.
            Err(_) => continue,
        }
        if answered.len() == enough {
            server.kill().await?;
            eprintln!("killed after {enough} answers");
        }
    }
    ensure!(answered.len() < machines.len(), "everybody was answered before the server was dead");
    Ok(answered)
}

fn dialer(server: &Server<'_>) -> Result<Dialer> {
    Ok(Dialer::new(server.url().parse()?, RootCertStore::empty()))
}

/// Registers all machines at the same time. One in `ask_every` asks for its map as soon as it is registered.
fn registrations<'a>(
    dialer: &'a Dialer,
    key: &'a str,
    machines: &'a [Machine],
    ask_every: usize,
) -> FuturesUnordered<impl Future<Output = Result<Answer>> + 'a> {
    let registration = move |(number, machine): (usize, &'a Machine)| async move {
        let answer = machine.register(dialer, key, number.is_multiple_of(ask_every));
        let answer = timeout(ANSWER_MAX, answer).await;
        answer.with_context(|| format!("not answered within {ANSWER_MAX:?}"))?
    };
    machines.iter().enumerate().map(registration).collect()
}

/// A machine that wants to join.
#[derive(Debug)]
struct Machine {
    key: MachinePrivate,
    node_key: NodePublic,
    hostname: String,
}

impl Machine {
    fn make(number: usize) -> Result<Self> {
        Ok(Self {
            key: MachinePrivate::generate()?,
            node_key: NodePrivate::generate()?.public(),
            hostname: format!("machine-{}", number / NAMESAKES),
        })
    }

    /// Registers, and then perhaps asks what it has become. An error means that it was not registered, as far as
    /// it can tell.
    async fn register(&self, dialer: &Dialer, key: &str, asks: bool) -> Result<Answer> {
        let client = ControlClient::connect(dialer, &self.key, VERSION).await?;
        let hostinfo = Hostinfo { hostname: self.hostname.clone(), ..Hostinfo::default() };
        let request = RegisterRequest {
            version: VERSION,
            node_key: self.node_key,
            auth: Some(RegisterAuth { auth_key: SecretText(key.to_owned()) }),
            hostinfo: Some(Box::new(hostinfo)),
            ..RegisterRequest::default()
        };
        let response = client.register(&request).await?;
        if !response.machine_authorized {
            bail!("refused: {response:?}");
        }
        let told = if asks { self.own_node(&client).await.ok() } else { None };
        Ok(Answer { node_key: self.node_key.to_string(), told })
    }

    /// Asks for a single map.
    async fn own_node(&self, client: &ControlClient) -> Result<Told> {
        let request =
            MapRequest { version: VERSION, node_key: self.node_key, ..MapRequest::default() };
        let message = client.map_stream(&request).await?.next().await?.context("no map")?;
        let node = message.node.context("a map without its own node")?;
        let (name, _) = node.name.split_once('.').context("a name without a domain")?;
        let addresses = node.addresses.iter().map(ipnet::IpNet::addr).collect();
        Ok(Told { name: name.to_owned(), addresses })
    }
}

/// A registration that was answered.
#[derive(Debug)]
struct Answer {
    node_key: String,
    /// Missing if it did not ask, or was not answered any more.
    told: Option<Told>,
}

/// What a node was told of itself.
#[derive(Debug)]
struct Told {
    name: String,
    addresses: BTreeSet<IpAddr>,
}

fn check_nothing_twice(nodes: &[NodeRecord]) -> Result<()> {
    check_distinct("id", nodes.iter().map(|node| &node.id))?;
    check_distinct("node key", nodes.iter().map(|node| &node.node_key))?;
    check_distinct("name", nodes.iter().map(|node| &node.given_name))?;
    check_distinct("address", nodes.iter().flat_map(|node| &node.ip_addresses))?;
    let incomplete = nodes.iter().find(|node| node.ip_addresses.len() != 2);
    ensure!(incomplete.is_none(), "a node lacks an address: {incomplete:?}");
    Ok(())
}

fn check_distinct<T: Ord + std::fmt::Debug>(
    what: &str,
    values: impl Iterator<Item = T>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for value in values {
        ensure!(!seen.contains(&value), "the {what} {value:?} exists twice");
        seen.insert(value);
    }
    Ok(())
}

/// Every node that was there is there, with the same id, name and addresses.
fn check_unchanged(before: &[NodeRecord], after: &[NodeRecord]) -> Result<()> {
    let after = by_key(after);
    for old in before {
        let new = after.get(&*old.node_key).with_context(|| format!("{old:?} is gone"))?;
        let is_same = old.id == new.id
            && old.given_name == new.given_name
            && old.ip_addresses == new.ip_addresses;
        ensure!(is_same, "{old:?} has become {new:?}");
    }
    Ok(())
}

/// Every registration that was answered is there, with the name and addresses that its client was told.
fn check_as_told(answered: &[Answer], nodes: &[NodeRecord]) -> Result<()> {
    let nodes = by_key(nodes);
    for Answer { node_key, told } in answered {
        let node = nodes.get(&**node_key).with_context(|| format!("{node_key} is lost"))?;
        let addresses: BTreeSet<IpAddr> = node.ip_addresses.iter().copied().collect();
        let is_as_told = told
            .as_ref()
            .is_none_or(|told| told.name == node.given_name && told.addresses == addresses);
        ensure!(is_as_told, "{node:?} was told {told:?}");
    }
    Ok(())
}

fn by_key(nodes: &[NodeRecord]) -> BTreeMap<&str, &NodeRecord> {
    nodes.iter().map(|node| (&*node.node_key, node)).collect()
}
