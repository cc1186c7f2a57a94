//! Where the node is: its addresses, as which address others see it, and which relay is its home.

use std::net::SocketAddr;
use std::time::Instant;

use mesh_derp::stun::{self, TransactionId};
use mesh_wire::EndpointType;

use super::outbox::Recipient;
use super::tunnel::WireGuard;
use super::{Core, Effect, StunServers};
use crate::port_mapping::PortMapped;

impl<T: WireGuard> Core<T> {
    /// Looks after what may have changed unnoticed.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.outbox.effects.push(Effect::LookAround);
        self.find_stun_servers(now);
        self.review_home(now);
        self.update_report();
    }

    /// Takes over where peers on the same networks may reach the node.
    pub(crate) fn handle_local_endpoints(&mut self, endpoints: Vec<(SocketAddr, EndpointType)>) {
        if self.local_endpoints != endpoints {
            self.local_endpoints = endpoints;
            self.update_report();
        }
    }

    /// Takes over where the gateway lets others reach the node.
    pub(crate) fn handle_port_mapped(&mut self, mapped: PortMapped) {
        self.port_mapped = mapped;
        self.update_report();
    }

    /// Asks for the way of every relay's STUN server, or asks the servers again.
    pub(super) fn find_stun_servers(&mut self, now: Instant) {
        let is_due = self.stun_servers.is_empty() || self.ways.is_any_active();
        if !is_due || !self.netcheck.is_stale(now) {
            return;
        }
        if !self.stun_servers.is_empty() {
            let servers = std::mem::take(&mut self.stun_servers);
            return self.handle_stun_servers(servers, now);
        }
        if let Some(map) = self.netmap.derp_map.clone() {
            self.outbox.effects.push(Effect::FindStunServers(map));
        }
    }

    /// Asks the STUN servers that were found.
    pub(crate) fn handle_stun_servers(&mut self, servers: StunServers, now: Instant) {
        self.netcheck.begin_round(now);
        for (region, server) in &servers {
            let Some(transaction) = self.ways.random().bytes() else { continue };
            self.netcheck.note_asked(transaction, *region, *server, now);
            let request = stun::encode_binding_request(&transaction);
            self.outbox.datagrams.push(&request, Recipient { to: *server, peer: None });
        }
        self.stun_servers = servers;
    }

    pub(super) fn handle_stun_answer(
        &mut self,
        transaction: &TransactionId,
        seen_as: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) {
        if self.netcheck.handle_answer(transaction, seen_as, from, now) {
            self.review_home(now);
            self.update_report();
        }
    }

    pub(super) fn review_home(&mut self, now: Instant) {
        let Some(map) = &self.netmap.derp_map else { return };
        let home = self.netcheck.choose_home(map, now);
        if let Some(home) = home
            && self.home != Some(home)
        {
            self.home = Some(home);
            self.outbox.effects.push(Effect::Home(home));
        }
    }
}
