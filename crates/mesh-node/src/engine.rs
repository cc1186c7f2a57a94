//! The engine: the one task that owns the core, and gives it sockets, relays and a clock.
//!
//! After every event it does what the core wants done. Nobody else touches any of it: programs ask by [`Request`].

mod device;
mod relays;
mod request;
mod sockets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_derp_client::Event as RelayEvent;
use mesh_keys::{DiscoPrivate, NodePrivate};
use mesh_path::Way;
use mesh_stack::{Outgoing, PacketBatch, Stack};
use mesh_wire::DerpRegionId;
use rustls::RootCertStore;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::debug;

use crate::control::{Report, Update};
use crate::core::{Core, Effect, PingId, Pong, Random, Routing, StunServers};
use crate::device::Device;
use crate::host::{local_endpoints, wall_clock};
use crate::port_mapping::PortMapped;
use crate::stun_servers::stun_servers;
use crate::watch::WatchEvent;

use device::Machine;
use relays::Relays;
pub(crate) use request::Request;
pub(crate) use sockets::Sockets;

/// Relay events that wait for the engine; relays then wait for it.
const RELAY_EVENTS_MAX: usize = 256;

/// Relay events that are taken in one go, before others get their turn.
const RELAY_EVENTS_AT_ONCE: usize = 32;

/// What the engine starts with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) key: watch::Receiver<NodePrivate>,
    pub(crate) disco: DiscoPrivate,
    pub(crate) routing: Routing,
    /// Whether peers are to be reached through relays alone.
    pub(crate) never_direct: bool,
    pub(crate) sockets: Sockets,
    pub(crate) stack: Stack,
    pub(crate) outgoing: Outgoing,
    pub(crate) device: Option<Box<dyn Device>>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) updates: mpsc::Receiver<Update>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) port_mapped: watch::Receiver<PortMapped>,
    pub(crate) report: watch::Sender<Report>,
    pub(crate) addresses: watch::Sender<Vec<IpAddr>>,
    pub(crate) has_relay: watch::Sender<bool>,
    pub(crate) events: broadcast::Sender<WatchEvent>,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Core,
    key: watch::Receiver<NodePrivate>,
    updates: mpsc::Receiver<Update>,
    requests: mpsc::Receiver<Request>,
    port_mapped: watch::Receiver<PortMapped>,
    report: watch::Sender<Report>,
    addresses: watch::Sender<Vec<IpAddr>>,
    /// Whether the home relay has let the node in, so that peers can reach it.
    has_relay: watch::Sender<bool>,
    events: broadcast::Sender<WatchEvent>,
    stack: Stack,
    outgoing: Outgoing,
    /// The machine, if its packets come through a device.
    machine: Option<Machine>,
    sockets: Sockets,
    relays: Relays,
    relay_events: mpsc::Receiver<RelayEvent>,
    found_servers: (mpsc::Sender<StunServers>, mpsc::Receiver<StunServers>),
    /// Who waits for which pong.
    pings: HashMap<PingId, oneshot::Sender<Pong>>,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let (relay_sender, relay_events) = mpsc::channel(RELAY_EVENTS_MAX);
        let private = parts.key.borrow().clone();
        let now = Instant::now();
        Self {
            core: Core::new(&private, parts.disco, parts.routing, Random::system(), now)
                .never_direct(parts.never_direct),
            key: parts.key,
            updates: parts.updates,
            requests: parts.requests,
            port_mapped: parts.port_mapped,
            report: parts.report,
            addresses: parts.addresses,
            has_relay: parts.has_relay,
            events: parts.events,
            stack: parts.stack,
            outgoing: parts.outgoing,
            machine: parts.device.map(Machine::new),
            sockets: parts.sockets,
            relays: Relays::new(private, parts.roots, relay_sender),
            relay_events,
            found_servers: mpsc::channel(1),
            pings: HashMap::new(),
        }
    }

    /// Works until the node is closed.
    pub(crate) async fn run(mut self) {
        let mut batch = PacketBatch::new();
        let mut buffer = sockets::Buffer::default();
        loop {
            let wake_at = self.core.next_timeout();
            tokio::select! {
                biased;
                // News of the tailnet first: a packet that it forbids must not slip through.
                update = self.updates.recv() => match update {
                    Some(update) => self.handle_update(update),
                    None => return,
                },
                changed = self.key.changed() => if changed.is_ok() { self.change_key() },
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                () = sleep_until(wake_at.into()) => self.core.handle_timeout(Instant::now()),
                Some(event) = self.relay_events.recv() => self.handle_relay_events(event),
                Some(servers) = self.found_servers.1.recv() => {
                    self.core.handle_stun_servers(servers, Instant::now());
                }
                Ok(()) = self.port_mapped.changed() => {
                    let mapped = *self.port_mapped.borrow_and_update();
                    self.core.handle_port_mapped(mapped);
                }
                // Who sends without end must still hear acknowledgements.
                () = self.outgoing.next_batch(&mut batch) => {
                    let now = Instant::now();
                    batch.packets().for_each(|packet| self.core.send_packet(packet, now));
                    self.send_of_machine();
                    self.receive_datagrams(&mut buffer);
                }
                () = device::readable(self.machine.as_mut()) => {
                    self.send_of_machine();
                    self.receive_datagrams(&mut buffer);
                }
                () = self.sockets.readable() => self.receive_datagrams(&mut buffer),
            }
            self.flush();
        }
    }

    fn handle_update(&mut self, update: Update) {
        self.core.is_watched = self.events.receiver_count() > 0;
        self.core.handle_update(update, wall_clock(), Instant::now());
    }

    fn change_key(&mut self) {
        let (private, now) = (self.key.borrow_and_update().clone(), Instant::now());
        self.core.change_key(&private, now);
        self.relays.change_key(private, now);
    }

    fn receive_datagrams(&mut self, buffer: &mut sockets::Buffer) {
        let now = Instant::now();
        self.sockets.receive(buffer, |datagram, from| {
            self.core.handle_datagram(datagram, Way::Udp(from), None, now);
        });
    }

    fn handle_relay_events(&mut self, first: RelayEvent) {
        self.handle_relay_event(first);
        for _ in 1..RELAY_EVENTS_AT_ONCE {
            let Ok(event) = self.relay_events.try_recv() else { return };
            self.handle_relay_event(event);
        }
    }

    fn handle_relay_event(&mut self, event: RelayEvent) {
        match event {
            RelayEvent::Received { region, src, packet } => {
                let (way, now) = (Way::Relay(region), Instant::now());
                self.core.handle_datagram(&packet, way, Some(src), now);
            }
            RelayEvent::PeerGone { region, key, .. } => self.core.handle_peer_gone(region, &key),
            RelayEvent::Connected { region } => {
                debug!(derp.region = region.0, "relay connected");
                self.note_relay(region, true);
                self.core.handle_relay_connected(region);
            }
            RelayEvent::Disconnected { region, cause } => {
                self.note_relay(region, false);
                debug!(
                    derp.region = region.0,
                    error = &cause as &dyn std::error::Error,
                    "relay gone"
                );
            }
        }
    }

    fn note_relay(&mut self, region: DerpRegionId, is_connected: bool) {
        if self.relays.home() == Some(region) {
            self.has_relay.send_replace(is_connected);
        }
    }

    /// Does what the core wants done.
    fn flush(&mut self) {
        let now = Instant::now();
        // What is done can call for more: addresses that cannot be sent to.
        while !self.core.outbox.is_empty() {
            let mut outbox = std::mem::take(&mut self.core.outbox);
            outbox.effects.drain(..).for_each(|effect| self.carry_out(effect, now));
            outbox.relayed.drain(..).for_each(|relayed| self.relays.send(relayed, now));
            self.sockets.send(&outbox.datagrams, |run| {
                run.peers().for_each(|peer| self.core.handle_send_failed(peer, run.to, now));
            });
            if !outbox.accepted.is_empty() {
                let packets = outbox.accepted.iter().map(|(packet, ())| packet);
                match &mut self.machine {
                    None => self.stack.receive(packets),
                    Some(machine) => machine.deliver(&self.stack, packets),
                }
            }
            self.core.outbox.reuse(outbox);
        }
    }

    fn carry_out(&mut self, effect: Effect, now: Instant) {
        match effect {
            Effect::Relays(map) => self.relays.set_map(map, now),
            Effect::Home(home) => self.relays.set_home(home, now),
            Effect::FindStunServers(map) => {
                let found = self.found_servers.0.clone();
                tokio::spawn(async move { found.send(stun_servers(&map).await).await.ok() });
            }
            Effect::LookAround => {
                self.relays.drop_idle(now);
                self.pings.retain(|_, waiter| !waiter.is_closed());
                self.core.handle_local_endpoints(local_endpoints(self.sockets.port()));
            }
            Effect::Addresses(addresses) => {
                self.stack.set_addresses(&addresses);
                self.addresses.send_replace(addresses);
            }
            Effect::Report(report) => drop(self.report.send_replace(report)),
            Effect::Pong(id, pong) => {
                if let Some(waiter) = self.pings.remove(&id) {
                    // Who asked may have gone.
                    waiter.send(pong).ok();
                }
            }
            // Watchers may have gone.
            Effect::Event(event) => drop(self.events.send(event)),
        }
    }
}
