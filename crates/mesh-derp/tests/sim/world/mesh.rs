//! Trunks: the connections of relays to each other. Each relay of a mesh has one to every other.

use std::mem;
use std::sync::Arc;

use mesh_derp::{
    Batch, ClientFrame, FrameError, FrameReader, MeshLink, PacketKind, PeerPresent, ServerFrame,
};

use super::{ADDR, World, number, public};
use crate::ledger::Fate;
use crate::link::{Bounds, Link, PIPE_BYTES_MAX, Trunk};
use crate::packet::{ConnectionId, Key, parse_packet};

/// The key of the first relay; those of the others follow.
const RELAYS: Key = 1000;

impl World {
    /// Has the relays of a mesh connect to those that they are not connected to.
    pub(crate) fn dial(&mut self) {
        let count = if self.is_mesh { self.relays.len() } else { 0 };
        let pairs = (0..count).flat_map(|home| (0..count).map(move |relay| (home, relay)));
        for (home, relay) in pairs.filter(|(home, relay)| home != relay) {
            let is_it = |link: &Link| {
                link.relay == relay && link.trunk.as_ref().is_some_and(|trunk| trunk.home == home)
            };
            if !self.links.values().any(is_it) {
                self.dial_one(home, relay);
            }
        }
    }

    fn dial_one(&mut self, home: usize, relay: usize) {
        let [own, other] = [home, relay].map(relay_key);
        let id = self.connect(own, relay, Bounds::RELAY);
        let table = Arc::clone(&self.relays[home].table);
        let peer = PeerPresent { key: public(other), addr: ADDR, flags: PeerPresent::MESH_PEER };
        let link = self.link(id);
        link.trunk = Some(Trunk::new(home, MeshLink::new(table, public(own), peer)));
        MeshLink::encode_first(&mut link.to_relay);
    }

    /// Ends a trunk where it begins, if it has not ended there. The other relay has yet to notice.
    pub(crate) fn end_trunk(&mut self, id: ConnectionId) {
        let Some(mut trunk) = self.link(id).trunk.take() else { return };
        let counts = trunk.end.leave();
        self.link(id).has_vanished = true;
        self.relays[trunk.home].count(&counts);
        for key in self.relays[trunk.home].presence.keys_by(id) {
            self.remove_way(trunk.home, key, id);
        }
    }

    /// Lets a relay read what another has written, at most so many bytes.
    pub(crate) fn home_reads(&mut self, id: ConnectionId, bytes_max: usize) {
        let link = self.link(id);
        let (in_pipe, own) = (link.in_pipe, link.key);
        let Some(trunk) = &mut link.trunk else { return };
        let chunk = trunk.take_written(bytes_max.min(in_pipe));
        let (home, mut frames) = (trunk.home, mem::take(&mut trunk.frames));
        link.in_pipe -= chunk.len();
        let result = frames.take_from_server(&chunk, |frame| {
            self.moment += 1;
            match frame {
                ServerFrame::PeerPresent(peer) if number(peer.key) != own => {
                    self.relays[home].presence.add_trunk(number(peer.key), id);
                }
                ServerFrame::PeerGone { key, .. } => self.remove_way(home, number(*key), id),
                ServerFrame::PeerPresent(_) => {}
                ServerFrame::ServerKey(_)
                | ServerFrame::ServerInfo(_)
                | ServerFrame::RecvPacket { .. }
                | ServerFrame::KeepAlive
                | ServerFrame::Ping(_)
                | ServerFrame::Pong(_) => panic!("{frame:?} to a relay"),
            }
            Ok::<_, FrameError>(())
        });
        assert_eq!(result, Ok(()));
        let trunk = self.link(id).trunk.as_mut().expect("it was there");
        trunk.frames = frames;
        assert_eq!(trunk.end.take(&chunk), Ok(()));
    }

    /// Lets a relay write to another, as far as the pipe takes it.
    pub(crate) fn home_writes(&mut self, id: ConnectionId) {
        let Some(trunk) = &mut self.link(id).trunk else { return };
        trunk.wakes.sleep(trunk.end.relay());
        loop {
            let bytes_max = self.dice.pick(&[2, 500, 64 << 10]);
            let link = self.link(id);
            let is_full = link.to_relay.len() >= PIPE_BYTES_MAX;
            let Some(trunk) = &mut link.trunk else { return };
            trunk.is_blocked = is_full;
            if is_full {
                return;
            }
            let mut bytes = Vec::new();
            let batch = trunk.end.relay().drain(&mut bytes, bytes_max);
            let home = trunk.home;
            link.remove_waiting(&batch, bytes.is_empty());
            if bytes.is_empty() {
                return;
            }
            assert_eq!(self.forward(id, &bytes), batch, "drained, and said to be");
            self.count_written(home, &batch);
            self.link(id).to_relay.extend_from_slice(&bytes);
        }
    }

    /// Looks at what one relay has written to another, and tells which packets it was.
    fn forward(&mut self, id: ConnectionId, mut input: &[u8]) -> Batch {
        let (patience, mut seen) = (self.patience(Bounds::RELAY), Batch::default());
        while let Some(frame) = FrameReader::new().next_from_client(&mut input).expect("frames") {
            let ClientFrame::ForwardPacket { payload, .. } = frame else {
                panic!("{frame:?} to a relay");
            };
            let (flow, number) = parse_packet(payload);
            let waited = self.ledger.write(flow, number, id, Fate::Sent);
            let link = self.link(id);
            assert!(link.written - waited.written <= patience, "{flow:?} {number} was starved");
            link.written += payload.len() as u64;
            seen[PacketKind::of(payload) as usize].add(payload.len());
        }
        assert!(input.is_empty(), "part of a frame");
        seen
    }

    /// Has all that is under way between relays arrive. Says whether there was anything.
    pub(super) fn settle_trunks(&mut self) -> bool {
        let readers = self.ids(|link| link.trunk.is_some() && link.in_pipe > 0);
        for id in &readers {
            self.home_reads(*id, usize::MAX);
        }
        let writers = self.ids(Link::is_home_ready);
        for id in &writers {
            self.home_writes(*id);
        }
        !readers.is_empty() || !writers.is_empty()
    }

    /// Checks that relays know whom the others have, once all has settled.
    pub(super) fn check_trunks(&self) {
        for (id, link) in &self.links {
            let Some(trunk) = &link.trunk else { continue };
            let mut there = self.relays[link.relay].presence.keys();
            there.remove(&link.key);
            assert_eq!(self.relays[trunk.home].presence.keys_by(*id), there, "who is there");
            assert_eq!(trunk.end.clients(), there.len());
        }
    }
}

fn relay_key(relay: usize) -> Key {
    RELAYS + Key::try_from(relay).expect("few relays")
}
