//! What happens: one thing after the other, at random.

use mesh_derp::{ClientFrame, PACKET_BYTES_MAX};

use crate::link::Link;
use crate::packet::{ConnectionId, Key};
use crate::world::World;

/// Things that happen until there is a rest.
const STEPS: u64 = 100;

/// Connections at once, but for those that a storm begins with.
const CONNECTIONS_MAX: usize = 12;

/// Most packets that are sent at once, mostly.
const BURST_USUALLY: u64 = 12;

/// The clients of a crowd: more than a connection remembers without looking whom it may forget.
const CROWD: Key = 80;

/// A kind of weather.
#[derive(Debug)]
pub(crate) struct Storm {
    /// How many keys there are.
    keys: Key,
    /// Most packets that are sent at once, now and then, and how many bytes longer than they need be.
    burst_max: u64,
    padding_max: u64,
}

impl Storm {
    /// Some storm, and the clients that are there before it.
    pub(crate) fn new(world: &mut World) -> Self {
        let dice = &mut world.dice;
        let is_crowd = dice.chance(2);
        let keys = if is_crowd { CROWD } else { dice.pick(&[2, 3, 5, 9]) };
        let (burst_max, padding_max) = match dice.below(20) {
            0 => (1200, 20),
            1 => (40, PACKET_BYTES_MAX as u64 - 80),
            _ => (BURST_USUALLY, 1400),
        };
        for key in 0..keys {
            world.join(key);
        }
        Self { keys, burst_max, padding_max }
    }

    /// Lets things happen.
    pub(crate) fn rage(&mut self, world: &mut World) {
        for _ in 0..STEPS {
            match world.dice.below(100) {
                0..25 => self.send(world),
                25..55 => Self::read(world),
                55..75 => Self::write(world),
                75..83 => Self::take_in(world),
                83..91 => Self::pass_on(world),
                91..94 => self.join(world),
                _ => self.disturb(world),
            }
        }
        if self.keys == CROWD && world.dice.chance(50) {
            self.send_to_all(world);
        }
    }

    /// A client sends packets to one key, or a few, and other frames between.
    fn send(&self, world: &mut World) {
        let Some(id) = any(world, Link::is_client) else { return };
        let keys = [self.any_key(world), self.any_key(world)];
        let is_disco = world.dice.chance(30);
        let burst_max = if world.dice.chance(20) { self.burst_max } else { BURST_USUALLY };
        for _ in 0..=world.dice.below(burst_max) {
            let to = world.dice.pick(&keys);
            let padding = world.dice.below(self.padding_max + 1);
            let is_disco = is_disco != world.dice.chance(5);
            world.send(id, to, is_disco, usize::try_from(padding).expect("small"));
        }
        if world.dice.chance(30) {
            let mut data = [0; 8];
            world.dice.fill(&mut data);
            world.link(id).send(&ClientFrame::Ping(data));
        }
    }

    fn send_to_all(&self, world: &mut World) {
        let Some(id) = any(world, Link::is_client) else { return };
        for key in 0..self.keys {
            world.send(id, key, false, 0);
        }
    }

    /// A relay reads what a client has sent, or a part that may end within a frame.
    fn read(world: &mut World) {
        let Some(id) = any(world, |link| !link.to_relay.is_empty()) else { return };
        let bytes = world.dice.pick(&[1, 50, 2000, 70_000, u64::MAX]);
        let bytes = 1 + world.dice.below(bytes);
        world.relay_reads(id, usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// A relay writes to a client.
    fn write(world: &mut World) {
        if let Some(id) = any(world, Link::is_writer_ready) {
            world.relay_writes(id);
        }
    }

    /// A client reads.
    fn take_in(world: &mut World) {
        let reads = |link: &Link| link.is_client() && link.in_pipe > 0 && !link.is_stalled;
        if let Some(id) = any(world, reads) {
            let in_pipe = world.link(id).in_pipe;
            let bytes = 1 + world.dice.below(in_pipe as u64);
            world.link(id).in_pipe -= usize::try_from(bytes).expect("small");
        }
    }

    /// A relay reads from another, or writes to it.
    fn pass_on(world: &mut World) {
        if let Some(id) = any(world, |link| link.trunk.is_some() && link.in_pipe > 0) {
            let in_pipe = world.link(id).in_pipe;
            let bytes = 1 + world.dice.below(in_pipe as u64);
            world.home_reads(id, usize::try_from(bytes).expect("small"));
        }
        if let Some(id) = any(world, Link::is_home_ready) {
            world.home_writes(id);
        }
    }

    /// A client connects, for the first time or once more.
    fn join(&self, world: &mut World) {
        if world.links.len() < CONNECTIONS_MAX.max(self.keys.into()) {
            let key = self.any_key(world);
            world.join(key);
        }
    }

    /// Something goes wrong, or at least otherwise.
    fn disturb(&self, world: &mut World) {
        let Some(id) = any(world, Link::is_client) else { return };
        match world.dice.below(9) {
            0 | 1 => {
                let is_stalled = &mut world.link(id).is_stalled;
                *is_stalled = !*is_stalled;
            }
            2 => Self::vanish(world, id),
            3 => {
                if let Some(id) = any(world, |link| link.has_vanished) {
                    world.end(id);
                }
            }
            4 => {
                let is_home = world.dice.chance(50);
                world.link(id).send(&ClientFrame::NotePreferred(is_home));
            }
            5 => {
                let span = world.dice.ms(0, 3000);
                world.pass_time(span);
            }
            6 => world.dial(),
            7 => {
                if let Some(id) = any(world, |link| link.trunk.is_some()) {
                    world.end_trunk(id);
                }
            }
            _ => self.offend(world, id),
        }
    }

    /// A client is gone, and with it what it has not sent yet.
    fn vanish(world: &mut World, id: ConnectionId) {
        let bytes = world.link(id).to_relay.len() as u64;
        let bytes = usize::try_from(world.dice.below(bytes + 1)).expect("small");
        let link = world.link(id);
        link.to_relay.truncate(bytes);
        link.has_vanished = true;
    }

    /// A client does what it may not, or somebody cuts it.
    fn offend(&self, world: &mut World, id: ConnectionId) {
        let (frame_type, bytes) = world.dice.pick(&[
            // Of types that nobody knows, of which one is too long.
            (0x77, 100_u32),
            (0x78, 0),
            (0x79, 2 << 20),
            // Too long, too short, and of relays alone.
            (0x04, 70_000),
            (0x12, 4),
            (0x10, 0),
            (0x11, 32),
        ]);
        if world.dice.chance(30) {
            let key = self.any_key(world);
            return world.cut(id, key);
        }
        let to_relay = &mut world.link(id).to_relay;
        to_relay.push(frame_type);
        to_relay.extend(bytes.to_be_bytes());
        to_relay.resize(to_relay.len() + bytes.min(200) as usize, 0x55);
    }

    fn any_key(&self, world: &mut World) -> Key {
        // Of a crowd some do most of what is done.
        let count = if world.dice.chance(80) { self.keys.min(6) } else { self.keys };
        Key::try_from(world.dice.below(count.into())).expect("a key")
    }
}

/// One of the links of which something is so.
fn any(world: &mut World, is_so: impl Fn(&Link) -> bool) -> Option<ConnectionId> {
    let ids = world.ids(is_so);
    (!ids.is_empty()).then(|| world.dice.pick(&ids))
}
