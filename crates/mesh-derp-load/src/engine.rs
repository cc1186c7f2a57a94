//! The one loop that drives all clients.
//!
//! Work is done in the order in which it comes, but quiet clients are looked at between any two others: what is measured with
//! them is the relay, not us. While there is traffic the loop never sleeps, for the relay would have to wake it, which on
//! virtual machines is dear, and which no network asks of it.

mod measure;
mod send;

use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_keys::NodePrivate;

pub(crate) use self::measure::Measured;
use crate::client::{Client, ClientError, Relay, SCRATCH_BYTES};
use crate::mischief::Mischief;
use crate::poller::{Lane, Poller};
use crate::traffic::{Drive, Flow, Traffic};

/// How often paced packets are sent, in nanoseconds: a few of each flow together, as clients send that have much to send.
const TICK: u64 = 1_000_000;

/// How long the last packets of a run are waited for.
pub(crate) const DRAIN: Duration = Duration::from_millis(700);

/// A client that is gone, and why.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) client: usize,
    pub(crate) error: ClientError,
}

/// A client that pings.
#[derive(Debug)]
struct Pinger {
    client: usize,
    period: u64,
    next_at: u64,
}

/// All clients and what they do.
pub(crate) struct Engine {
    pub(crate) clients: Vec<Client>,
    pub(crate) traffic: Traffic,
    /// Those that are gone without having been told to.
    pub(crate) ended: Vec<Ended>,
    /// Hostile clients that the relay hung up on.
    pub(crate) hung_up: usize,
    /// Processes of the relays.
    pids: Vec<u32>,
    poller: Poller,
    pingers: Vec<Pinger>,
    scratch: Vec<u8>,
    packet: Vec<u8>,
    ready: Vec<usize>,
    ready_quiet: Vec<usize>,
    /// When paced packets are sent next.
    next_tick_at: u64,
    looked_at: u64,
    /// Whether there is any traffic.
    is_hot: bool,
    /// How long there has been nothing to do, in nanoseconds.
    idle: u64,
}

/// Reads of one client in a row: whoever is sent much is emptied before more is sent, for it would have a machine of its
/// own, and what waits for it in the kernel is not the relay's doing.
const READS_MAX: usize = 16;

impl Engine {
    /// An engine without clients for relays with these processes.
    pub(crate) fn new(pids: Vec<u32>) -> Result<Self> {
        let poller = Poller::new().context("no epoll")?;
        Ok(Self {
            clients: Vec::new(),
            traffic: Traffic::default(),
            ended: Vec::new(),
            hung_up: 0,
            pids,
            poller,
            pingers: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            packet: Vec::new(),
            ready: Vec::new(),
            ready_quiet: Vec::new(),
            next_tick_at: 0,
            looked_at: 0,
            is_hot: false,
            idle: 0,
        })
    }

    /// Nanoseconds of the run.
    pub(crate) fn now(&self) -> u64 {
        self.poller.now()
    }

    /// Begins to connect a client, and returns its number.
    pub(crate) fn connect(&mut self, relay: &Relay, lane: Lane) -> Result<usize> {
        self.begin(relay, lane, None)
    }

    /// Begins to connect a hostile client.
    pub(crate) fn connect_hostile(&mut self, relay: &Relay, mischief: Mischief) -> Result<()> {
        self.begin(relay, Lane::Bulk, Some(mischief))?;
        Ok(())
    }

    fn begin(&mut self, relay: &Relay, lane: Lane, mischief: Option<Mischief>) -> Result<usize> {
        let private = NodePrivate::generate().context("no randomness")?;
        let client = Client::connect(relay, private, lane, mischief, self.now())?;
        let number = self.clients.len();
        self.poller.add(lane, number, &client.socket, client.interest)?;
        self.clients.push(client);
        Ok(number)
    }

    /// Connects `count` clients, at most `at_once` at a time, and waits until all are logged in.
    ///
    /// # Errors
    /// One of them is not after `limit`.
    pub(crate) fn connect_all(
        &mut self,
        relay: &Relay,
        lane: Lane,
        count: usize,
        at_once: usize,
        limit: Duration,
    ) -> Result<Vec<usize>> {
        let first = self.clients.len();
        let deadline = self.now() + nanoseconds(limit);
        let mut oldest = first;
        while oldest < first + count {
            while self.clients.len() < (first + count).min(oldest + at_once) {
                self.connect(relay, lane)?;
            }
            self.turn()?;
            if let Some(ended) = self.ended.iter().find(|ended| ended.client >= first) {
                anyhow::bail!("client {} is not logged in: {}", ended.client, ended.error);
            }
            while self.clients.get(oldest).is_some_and(Client::is_ready) {
                oldest += 1;
            }
            ensure!(self.now() < deadline, "{} of {count} clients logged in", oldest - first);
        }
        Ok((first..first + count).collect())
    }

    /// Adds a flow that rests, and returns its number.
    pub(crate) fn add_flow(&mut self, lane: Lane, from: usize, to: usize, bytes: usize) -> usize {
        let keys = [self.clients[from].key, self.clients[to].key];
        self.traffic.flows.push(Flow::new(lane, [from, to], keys, bytes));
        self.traffic.flows.len() - 1
    }

    /// Makes a flow send otherwise from here on.
    pub(crate) fn drive(&mut self, flow: usize, drive: Drive) {
        self.traffic.flows[flow].drive = drive;
        self.traffic.roomy.push(flow);
        self.is_hot = true;
    }

    /// Makes a client ping from here on.
    pub(crate) fn ping_every(&mut self, client: usize, period: Duration) {
        let (period, next_at) = (nanoseconds(period), self.now());
        self.pingers.push(Pinger { client, period, next_at });
    }

    /// Makes all flows rest and nobody ping.
    pub(crate) fn rest(&mut self) {
        self.pingers.clear();
        self.is_hot = false;
        for flow in &mut self.traffic.flows {
            flow.drive = Drive::Rest;
        }
    }

    /// Leaves unread, or reads again, what a client is sent.
    pub(crate) fn set_reading(&mut self, client: usize, reads: bool) -> Result<()> {
        self.clients[client].reads = reads;
        self.watch(client)?;
        Ok(())
    }

    /// Lets everything happen for this long.
    pub(crate) fn run(&mut self, time: Duration) -> Result<()> {
        let end = self.now() + nanoseconds(time);
        while self.now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// One round: what is due is sent, what has come is taken.
    fn turn(&mut self) -> Result<()> {
        let began_at = self.now();
        let mut ready = std::mem::take(&mut self.ready);
        if self.is_hot {
            self.poller.look_at(Lane::Bulk, &mut ready)?;
        } else {
            self.poller.wait(&mut ready)?;
        }
        let mut is_idle = ready.is_empty() && self.traffic.roomy.is_empty();
        for client in &ready {
            self.serve(*client)?;
            self.serve_quiet()?;
        }
        self.ready = ready;
        self.fill_windows()?;
        self.serve_quiet()?;
        if began_at >= self.next_tick_at {
            self.next_tick_at = began_at + TICK;
            is_idle &= !self.send_due()?;
        }
        if is_idle {
            self.idle += self.now() - began_at;
        }
        Ok(())
    }

    fn serve_quiet(&mut self) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready_quiet);
        self.poller.look_at(Lane::Quiet, &mut ready)?;
        for client in &ready {
            self.serve(*client)?;
        }
        self.ready_quiet = ready;
        Ok(())
    }

    fn serve(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        if client.is_closed() {
            return Ok(());
        }
        let (lane, traffic, poller) = (client.lane, &mut self.traffic, &self.poller);
        let mut has_more = Ok(client.reads);
        for _ in 0..READS_MAX {
            if !matches!(has_more, Ok(true)) {
                break;
            }
            has_more = client.read(
                &mut self.scratch,
                || poller.now(),
                |now, frame| traffic.handle(number, lane, now, frame),
            );
        }
        let done = has_more.and_then(|_| client.flush());
        self.settle(number, done)
    }

    /// Sees to it that a client whose work is done is watched for what it needs, or gone.
    fn settle(&mut self, client: usize, done: Result<(), ClientError>) -> Result<()> {
        if let Err(error) = done {
            let (lane, socket) = (self.clients[client].lane, &self.clients[client].socket);
            self.poller.remove(lane, socket)?;
            self.clients[client].close();
            if self.clients[client].mischief.is_some() {
                self.hung_up += 1;
            } else {
                self.ended.push(Ended { client, error });
            }
            return Ok(());
        }
        self.watch(client)?;
        Ok(())
    }

    fn watch(&mut self, number: usize) -> io::Result<()> {
        let client = &mut self.clients[number];
        let wanted = client.wanted();
        if client.interest != wanted && !client.is_closed() {
            client.interest = wanted;
            self.poller.change(client.lane, number, &client.socket, wanted)?;
        }
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
