//! What programs ask of the engine.

use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Engine;
use crate::core::{NetcheckReport, PingId, Pong};
use crate::node::{Status, WhoIs};

/// A question with the place for its answer. Whoever has gone does not wait for one.
#[derive(Debug)]
pub(crate) enum Request {
    /// Whose is an address?
    WhoIs(IpAddr, oneshot::Sender<Option<WhoIs>>),
    /// Which addresses has a name in the tailnet?
    Resolve(String, oneshot::Sender<Vec<IpAddr>>),
    /// Does the tailnet lead to an address?
    Routes(IpAddr, oneshot::Sender<bool>),
    /// What is there to tell?
    Status(oneshot::Sender<Status>),
    /// What is the network like?
    Netcheck(oneshot::Sender<NetcheckReport>),
    /// Does a peer answer disco? Dropped if nobody has the address.
    PingDisco(IpAddr, oneshot::Sender<Pong>),
    /// Does a peer's tunnel answer? Dropped if nobody has the address.
    PingTsmp(IpAddr, oneshot::Sender<Pong>),
}

impl Engine {
    pub(super) fn handle_request(&mut self, request: Request) {
        let (core, now) = (&mut self.core, Instant::now());
        // Who asked may have gone.
        match request {
            Request::WhoIs(address, answer) => drop(answer.send(core.who_is(address))),
            Request::Resolve(name, answer) => drop(answer.send(core.resolve(&name))),
            Request::Routes(address, answer) => drop(answer.send(core.has_route(address))),
            Request::Status(answer) => drop(answer.send(core.status(now))),
            Request::Netcheck(answer) => drop(answer.send(core.netcheck())),
            Request::PingDisco(address, answer) => {
                let id = core.ping_disco(address, now);
                self.note_ping(id, answer);
            }
            Request::PingTsmp(address, answer) => {
                let id = core.ping_tsmp(address, now);
                self.note_ping(id, answer);
            }
        }
    }

    fn note_ping(&mut self, id: Option<PingId>, answer: oneshot::Sender<Pong>) {
        self.pings.extend(id.map(|id| (id, answer)));
    }
}
