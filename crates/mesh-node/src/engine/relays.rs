//! Connections to the relays' regions: made when something is to be sent through one, ended when it is not needed any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_derp_client::{Event, Options, RegionClient};
use mesh_keys::NodePrivate;
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId};
use rustls::RootCertStore;
use tokio::sync::mpsc;

use crate::core::Relayed;

/// How long a relay that is not home stays connected after it was last needed.
const IDLE: Duration = Duration::from_mins(1);

/// The regions.
#[derive(Debug)]
pub(super) struct Relays {
    private: NodePrivate,
    roots: Arc<RootCertStore>,
    /// Where relays tell what has come.
    events: mpsc::Sender<Event>,
    map: Option<Arc<DerpMap>>,
    home: Option<DerpRegionId>,
    connected: HashMap<DerpRegionId, Relay>,
}

#[derive(Debug)]
struct Relay {
    client: RegionClient,
    used_at: Instant,
}

impl Relays {
    pub(super) fn new(
        private: NodePrivate,
        roots: Arc<RootCertStore>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { private, roots, events, map: None, home: None, connected: HashMap::new() }
    }

    /// Takes over the relays. Connections to regions that are not what they were end.
    pub(super) fn set_map(&mut self, map: Option<Arc<DerpMap>>, now: Instant) {
        let old = std::mem::replace(&mut self.map, map);
        let new = self.map.clone();
        self.connected.retain(|id, _| region(old.as_ref(), *id) == region(new.as_ref(), *id));
        self.connect_home(now);
    }

    /// Makes a region the home, which stays connected.
    pub(super) fn set_home(&mut self, home: DerpRegionId, now: Instant) {
        let old = self.home.replace(home).filter(|old| *old != home);
        if let Some(old) = old.and_then(|old| self.connected.get(&old)) {
            old.client.set_home(false);
        }
        self.connect_home(now);
    }

    /// The home region.
    pub(super) fn home(&self) -> Option<DerpRegionId> {
        self.home
    }

    /// Connects anew, with another key.
    pub(super) fn change_key(&mut self, private: NodePrivate, now: Instant) {
        self.private = private;
        self.connected.clear();
        self.connect_home(now);
    }

    /// Sends a datagram.
    pub(super) fn send(&mut self, Relayed { region, key, datagram }: Relayed, now: Instant) {
        if let Some(relay) = self.relay(region, now) {
            relay.client.send(key, datagram);
        }
    }

    /// Ends connections that are not needed.
    pub(super) fn drop_idle(&mut self, now: Instant) {
        let home = self.home;
        self.connected.retain(|id, relay| {
            Some(*id) == home || now.saturating_duration_since(relay.used_at) < IDLE
        });
    }

    fn connect_home(&mut self, now: Instant) {
        if let Some(relay) = self.home.and_then(|home| self.relay(home, now)) {
            relay.client.set_home(true);
        }
    }

    /// The connection to a region, which is made if there is none.
    fn relay(&mut self, id: DerpRegionId, now: Instant) -> Option<&Relay> {
        if !self.connected.contains_key(&id) {
            let options = Options {
                region: Arc::new(region(self.map.as_ref(), id)?.clone()),
                private: self.private.clone(),
                roots: Arc::clone(&self.roots),
                is_home: self.home == Some(id),
            };
            let client = RegionClient::spawn(options, self.events.clone());
            self.connected.insert(id, Relay { client, used_at: now });
        }
        let relay = self.connected.get_mut(&id)?;
        relay.used_at = now;
        Some(relay)
    }
}

fn region(map: Option<&Arc<DerpMap>>, id: DerpRegionId) -> Option<&DerpRegion> {
    map?.regions.as_ref()?.get(&id)
}
