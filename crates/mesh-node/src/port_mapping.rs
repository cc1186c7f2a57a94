//! Has the machine's gateway lead a public UDP port to the node, so that peers outside find it directly.
//!
//! A task beside the engine. It looks from time to time which gateway there is, has `mesh-portmap` say what to ask, and tells
//! the engine what came of it. Most networks have no such gateway, and cost a look at the routes now and then. A mapping is
//! given back when the task ends, which is when the node is closed or dropped, and when the gateway or the own address
//! has changed.

mod gateway;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mesh_portmap::{ANSWER_BYTES_MAX, Mapper, Services};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tracing::debug;

use gateway::default_gateway;

/// How often the task looks whether the gateway or the own address is another.
const LOOK_PERIOD: Duration = Duration::from_secs(30);

/// What has come of it so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortMapped {
    /// Where the node is reached through the gateway.
    pub(crate) endpoint: Option<SocketAddr>,
    /// What the gateway speaks; `None` if nobody was asked.
    pub(crate) services: Option<Services>,
}

/// The task.
#[derive(Debug)]
pub(crate) struct PortMapping<F = fn() -> Option<SocketAddrV4>> {
    /// Finds the gateway, and its port for such requests.
    find_gateway: F,
    /// The node's port.
    port: u16,
    mapped: watch::Sender<PortMapped>,
}

/// What is had with one gateway, as long as the node stays at the same address.
#[derive(Debug)]
struct Line {
    gateway: SocketAddrV4,
    own: Ipv4Addr,
    mapper: Mapper,
}

impl PortMapping {
    /// A task that has the machine's gateway lead to a port, and what it tells of that.
    pub(crate) fn new(port: u16) -> (Self, watch::Receiver<PortMapped>) {
        let (mapped, told) = watch::channel(PortMapped::default());
        (Self { find_gateway: default_gateway, port, mapped }, told)
    }
}

impl<F: Fn() -> Option<SocketAddrV4>> PortMapping<F> {
    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        let mut line = None;
        loop {
            self.work(&mut line).await;
            let look_at = Instant::now() + LOOK_PERIOD;
            let wake_at = line.as_ref().map(|line| line.mapper.poll_timeout());
            sleep_until(wake_at.map_or(look_at, |at| at.min(look_at)).into()).await;
        }
    }

    /// Does what is due.
    async fn work(&self, line: &mut Option<Line>) {
        // A socket each time: what comes late for another question is heard by nobody.
        let socket = self.look(line).await;
        if let (Some(line), Some(socket)) = (line.as_mut(), &socket) {
            line.exchange(socket).await;
        }
        self.tell(line.as_ref());
    }

    /// Finds the gateway, and begins anew if it is another or knows the node by another address.
    async fn look(&self, line: &mut Option<Line>) -> Option<UdpSocket> {
        let found = match (self.find_gateway)() {
            Some(gateway) => Some(gateway).zip(connect(gateway).await.ok()),
            None => None,
        };
        let known = line.as_ref().map(|line| (line.gateway, line.own));
        if found.as_ref().map(|(gateway, (own, _))| (*gateway, *own)) != known {
            // What is held goes back before anything else is asked for.
            line.take();
            *line = found.as_ref().and_then(|(gateway, (own, _))| {
                let mut nonce = [0; _];
                getrandom::fill(&mut nonce).ok()?;
                let mapper = Mapper::new(*own, self.port, nonce, Instant::now());
                Some(Line { gateway: *gateway, own: *own, mapper })
            });
        }
        found.map(|(_, (_, socket))| socket)
    }

    fn tell(&self, line: Option<&Line>) {
        let endpoint = line.and_then(|line| line.mapper.external()).map(SocketAddr::V4);
        let services = line.and_then(|line| line.mapper.services());
        let mapped = PortMapped { endpoint, services };
        self.mapped.send_if_modified(|told| {
            let is_new = *told != mapped;
            if is_new {
                debug!(mapped = endpoint.is_some(), ?services, "port mapping has changed");
            }
            *told = mapped;
            is_new
        });
    }
}

impl Line {
    /// Asks the gateway what is due, and hears it out. Ends when nothing is waited for, at the latest when time is up for
    /// both protocols.
    async fn exchange(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            self.mapper.handle_timeout(Instant::now());
            while let Some(request) = self.mapper.poll_request() {
                // What is not sent is not answered either.
                socket.send(&request).await.ok();
            }
            if !self.mapper.is_asking() {
                return;
            }
            let received = timeout_at(self.mapper.poll_timeout().into(), socket.recv(&mut buffer));
            // An error is a gateway that does not listen.
            if let Ok(Ok(length)) = received.await {
                self.mapper.handle_answer(&buffer[..length], Instant::now());
            }
        }
    }

    /// Sends a gateway what gives the mapping back, once: if it does not arrive, time ends the mapping. From another address
    /// than the one it was asked for from it would mean another.
    fn give_back(&self) -> io::Result<()> {
        if let Some(request) = self.mapper.give_back() {
            let socket = std::net::UdpSocket::bind((self.own, 0))?;
            socket.set_nonblocking(true)?;
            socket.send_to(&request, self.gateway)?;
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Who has no way to the gateway any more has nothing to give back.
        self.give_back().ok();
    }
}

/// A socket that hears the gateway alone, and the own address towards it.
async fn connect(gateway: SocketAddrV4) -> io::Result<(Ipv4Addr, UdpSocket)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(gateway).await?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok((own, socket)),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

#[cfg(test)]
mod tests;
