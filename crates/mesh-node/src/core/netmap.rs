//! What the control server says, and what that changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use mesh_client::Netmap;
use mesh_peers::Event as PeerEvent;
use mesh_wire::{DerpMap, MapResponse, Node};

use super::tunnel::WireGuard;
use super::{Core, Effect};
use crate::control::Update;
use crate::watch::WatchEvent;

impl<T: WireGuard> Core<T> {
    /// Takes what the control server says. `wall_clock` is the machine's: when a peer was seen, and whose key has expired.
    pub(crate) fn handle_update(&mut self, update: Update, wall_clock: Timestamp, now: Instant) {
        match update {
            Update::Began => {
                self.begins = true;
                self.list = None;
            }
            Update::Peers(peers) => self.handle_listed(peers, now),
            Update::Message(message) => {
                self.note_time(&message, wall_clock, now);
                if !message.keep_alive {
                    self.handle_message(*message, wall_clock, now);
                }
            }
            Update::LoggedOut => self.forget_tailnet(wall_clock, now),
        }
    }

    /// Forgets the tailnet: the node has no addresses there any more, no peers, and no relays.
    fn forget_tailnet(&mut self, wall_clock: Timestamp, now: Instant) {
        let no_relays = DerpMap { regions: Some(BTreeMap::new()), ..DerpMap::default() };
        let nothing = MapResponse { derp_map: Some(Arc::new(no_relays)), ..MapResponse::default() };
        self.begins = true;
        self.list = None;
        self.handle_message(nothing, wall_clock, now);
        self.take_addresses();
    }

    fn handle_message(&mut self, mut message: MapResponse, wall_clock: Timestamp, now: Instant) {
        let mut events = Vec::new();
        if std::mem::take(&mut self.begins) {
            self.netmap = Netmap::default();
            self.gate.filter.clear();
            if message.peers.is_empty() && self.list.is_none() {
                self.peers.clear(&mut events);
            }
        }
        if let Some(list) = self.list.take() {
            self.peers.finish_list(&list, &mut events);
        }
        let has_new_relays = message.derp_map.is_some();
        let has_new_self = message.node.is_some();
        self.apply_filter(&message);
        self.note_expired(message.peers.iter().chain(&message.peers_changed));
        self.peers.apply(&mut message, wall_clock, &mut events);
        self.netmap.apply(message, wall_clock);
        for event in events {
            self.handle_peer_event(event, now);
        }
        if has_new_self {
            self.take_addresses();
        }
        if has_new_relays {
            self.outbox.effects.push(Effect::Relays(self.netmap.derp_map.clone()));
            self.stun_servers.clear();
            self.find_stun_servers(now);
            self.review_home(now);
        }
    }

    /// Takes a part of the list of all peers. The message that it is of comes last.
    fn handle_listed(&mut self, peers: Vec<Node>, now: Instant) {
        if self.begins {
            // Rules of the session before must not judge peers of this one.
            self.gate.filter.clear();
        }
        self.note_expired(&peers);
        let mut events = Vec::new();
        let list = self.list.get_or_insert_default();
        self.peers.apply_listed(list, peers, &mut events);
        for event in events {
            self.handle_peer_event(event, now);
        }
    }

    fn apply_filter(&mut self, message: &MapResponse) {
        if let Some(rules) = &message.packet_filter {
            self.gate.filter.set("base", rules);
        }
        if let Some(None) = message.packet_filters.get("*") {
            self.gate.filter.clear();
        }
        for (name, rules) in message.packet_filters.iter().filter(|(name, _)| *name != "*") {
            match rules {
                Some(rules) => drop(self.gate.filter.set(name, rules)),
                None => self.gate.filter.remove(name),
            }
        }
    }

    pub(super) fn handle_peer_event(&mut self, event: PeerEvent, now: Instant) {
        let changed = match event {
            PeerEvent::Came(index) => index,
            PeerEvent::Went(index, peer) => {
                self.tunnels.remove(&peer.key);
                self.ways.forget(index);
                self.expiry.forget(index);
                return self.tell(|| WatchEvent::PeerRemoved(peer.id));
            }
            PeerEvent::Changed(index, changed) => {
                let Some(peer) = self.peers.get(index) else { return };
                if peer.expired {
                    self.tunnels.remove(&peer.key);
                }
                let Self { ways, outbox, .. } = self;
                if let Some(old_key) = ways.handle_changed(index, peer, changed, now, outbox) {
                    self.tunnels.remove(&old_key);
                }
                // It was started anew. The session may be one of after that, for the disco key is told later than a node key.
                if changed.disco_key {
                    self.tunnels.renew(&peer.key);
                }
                index
            }
        };
        if self.is_watched
            && let Some(peer) = self.peers.get(changed)
        {
            let node = Arc::new(peer.to_node());
            self.tell(|| WatchEvent::Peer(node));
        }
        self.judge_expiry(changed, now);
    }

    /// Takes the node's own addresses and routes from the netmap. Without the node itself there are none.
    fn take_addresses(&mut self) {
        let node = self.netmap.node.as_deref();
        let locals = node.and_then(|node| node.allowed_ips.clone()).unwrap_or_default();
        let own = node.into_iter().flat_map(|node| &node.addresses);
        let addresses: Vec<IpAddr> = own.map(ipnet::IpNet::addr).collect();
        self.gate.filter.set_locals(locals);
        if self.gate.addresses != addresses {
            self.outbox.effects.push(Effect::Addresses(addresses.clone()));
            self.gate.addresses = addresses;
        }
        if let Some(node) = self.netmap.node.clone() {
            self.tell(|| WatchEvent::SelfNode(node.into()));
        }
    }

    fn tell(&mut self, event: impl FnOnce() -> WatchEvent) {
        if self.is_watched {
            self.outbox.effects.push(Effect::Event(event()));
        }
    }
}
