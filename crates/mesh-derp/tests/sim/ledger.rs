//! What has become of every packet.

use std::collections::BTreeMap;

use crate::packet::{ConnectionId, Flow};

/// A moment: how many frames had been handled until then, by all relays.
pub(crate) type Moment = u64;

/// What has become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is on its way to a relay, or has been lost with the connection.
    Sent,
    /// A relay has it, and nobody was there to take it.
    Absent,
    /// A relay has it for a connection.
    Waits(Waiting),
    /// It was written to this client.
    Written(ConnectionId),
}

/// A packet that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// For whom: a client, or the trunk to another relay.
    pub(crate) receiver: ConnectionId,
    /// By which connection it came.
    pub(crate) via: ConnectionId,
    pub(crate) handled_at: Moment,
    /// How many bytes had been written to the receiver then.
    pub(crate) written: u64,
}

/// All packets of all flows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: BTreeMap<Flow, Vec<Fate>>,
    /// Which packet of a flow was the last that was written, by the connections that it came and left by.
    last: BTreeMap<(ConnectionId, ConnectionId, Flow), u32>,
}

impl Ledger {
    /// Begins a packet, and numbers it.
    pub(crate) fn send(&mut self, flow: Flow) -> u32 {
        let fates = self.fates.entry(flow).or_default();
        fates.push(Fate::Sent);
        u32::try_from(fates.len() - 1).expect("not that many packets")
    }

    pub(crate) fn fate(&self, flow: Flow, number: u32) -> Fate {
        let fates = self.fates.get(&flow).expect("somebody has sent it");
        *fates.get(number as usize).expect("somebody has sent it")
    }

    /// Notes what a relay does with a packet that has come.
    pub(crate) fn handle(&mut self, flow: Flow, number: u32, fate: Fate) {
        assert_eq!(self.fate(flow, number), Fate::Sent, "{flow:?} {number} comes twice");
        self.set(flow, number, fate);
    }

    /// Notes that a packet was written to a connection, with which its fate is another. Returns how it waited.
    ///
    /// # Panics
    /// If it should not have been written.
    pub(crate) fn write(
        &mut self,
        flow: Flow,
        number: u32,
        to: ConnectionId,
        then: Fate,
    ) -> Waiting {
        let fate = self.fate(flow, number);
        let Fate::Waits(waiting) = fate else {
            panic!("{flow:?} {number} is {fate:?} and written to {to}");
        };
        assert_eq!(waiting.receiver, to, "{flow:?} {number} is for another connection");
        let before = self.last.insert((waiting.via, to, flow), number);
        assert!(before.is_none_or(|before| before < number), "{flow:?} {number} after {before:?}");
        self.set(flow, number, then);
        waiting
    }

    fn set(&mut self, flow: Flow, number: u32, fate: Fate) {
        let fates = self.fates.get_mut(&flow).expect("somebody has sent it");
        fates[number as usize] = fate;
    }
}
