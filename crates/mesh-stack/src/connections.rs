//! All TCP connections: by number, by flow and by when they must be looked at.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;
use smoltcp::time::Instant;

use crate::connection::Connection;
use crate::memory::BufferMemory;
use crate::packet::Flow;

/// The number of a connection. It is given to another one only after both the program and the stack are done
/// with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(usize);

/// The table of connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<ConnectionId>,
    /// Only those that still take packets.
    by_flow: HashMap<Flow, ConnectionId, RandomState>,
    /// `(at, id)` is here exactly if the connection's `timer` is `at`.
    timers: BTreeSet<(Instant, ConnectionId)>,
    memory: BufferMemory,
}

impl Connections {
    /// The number of connections.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The numbers of all connections.
    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        occupied.map(|(index, _)| ConnectionId(index)).collect()
    }

    /// Lets a connection grow and shrink its buffers, each at most to `bytes_max`.
    pub(crate) fn adapt(&mut self, id: ConnectionId, bytes_max: usize, now: Instant) {
        if let Some(connection) = self.slots.get_mut(id.0).and_then(Option::as_mut) {
            connection.tcp.adapt(&mut self.memory, bytes_max, now);
        }
    }

    /// Adds a connection whose flow is new.
    pub(crate) fn insert(&mut self, connection: Connection) -> ConnectionId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ConnectionId(self.slots.len() - 1)
        });
        self.by_flow.insert(connection.flow, id);
        self.slots[id.0] = Some(Box::new(connection));
        id
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.0)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.0)?.as_deref_mut()
    }

    /// The connection that takes the packets of `flow`.
    pub(crate) fn find(&self, flow: &Flow) -> Option<ConnectionId> {
        self.by_flow.get(flow).copied()
    }

    /// Gives the flow of a connection free.
    pub(crate) fn unlink(&mut self, id: ConnectionId) {
        let Some(flow) = self.get(id).map(|connection| connection.flow) else { return };
        if self.find(&flow) == Some(id) {
            self.by_flow.remove(&flow);
        }
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.unlink(id);
        let Some(connection) = self.slots.get_mut(id.0).and_then(Option::take) else { return };
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, id));
        }
        connection.tcp.give_back(&mut self.memory);
        self.free.push(id);
    }

    /// Sees to it that the connection is looked at by `at`.
    ///
    /// An earlier timer stays, for most timers are pushed back with every packet: whoever is looked at too
    /// early asks again.
    pub(crate) fn set_timer(&mut self, id: ConnectionId, at: Instant) {
        let Some(connection) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { return };
        if connection.timer.is_some_and(|armed| armed <= at) {
            return;
        }
        if let Some(armed) = connection.timer.replace(at) {
            self.timers.remove(&(armed, id));
        }
        self.timers.insert((at, id));
    }

    /// When the next connection must be looked at.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes one whose time has come.
    pub(crate) fn pop_timer(&mut self, now: Instant) -> Option<ConnectionId> {
        let (at, id) = self.timers.first().copied().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, id));
        if let Some(connection) = self.get_mut(id) {
            connection.timer = None;
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::connection::Phase;
    use crate::tcp::Tcp;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Remove(usize),
        SetTimer(usize, i64),
        PopTimers(i64),
    }

    fn flow(port: u16) -> Flow {
        let end = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Flow { local: end(80), remote: end(port) }
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..10_u16).prop_map(Step::Insert),
            (0..10_usize).prop_map(Step::Remove),
            (0..10_usize, 0..100_i64).prop_map(|(index, at)| Step::SetTimer(index, at)),
            (0..100_i64).prop_map(Step::PopTimers),
        ]
    }

    proptest! {
        /// The model is a list of connections with their timers.
        #[test]
        fn table_agrees_with_a_list(steps in vec(any_step(), 0..80)) {
            let mut table = Connections::default();
            let mut model: Vec<(ConnectionId, Flow, Option<Instant>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(port) => {
                        if table.find(&flow(port)).is_none() {
                            let tcp = Tcp::connect(flow(port), 7, 1280, Instant::ZERO);
                            let new = Connection::new(tcp, flow(port), Phase::Held);
                            let id = table.insert(new);
                            prop_assert!(model.iter().all(|(other, ..)| *other != id));
                            model.push((id, flow(port), None));
                        }
                    }
                    Step::Remove(index) => {
                        if index < model.len() {
                            table.remove(model.swap_remove(index).0);
                        }
                    }
                    Step::SetTimer(index, at) => {
                        if let Some((id, _, timer)) = model.get_mut(index) {
                            let at = Instant::from_millis(at);
                            table.set_timer(*id, at);
                            *timer = Some(timer.map_or(at, |timer| timer.min(at)));
                        }
                    }
                    Step::PopTimers(now) => {
                        let now = Instant::from_millis(now);
                        let mut popped: Vec<_> =
                            std::iter::from_fn(|| table.pop_timer(now)).collect();
                        popped.sort_unstable();
                        let due = model.iter_mut().filter(|(.., at)| at.is_some_and(|at| at <= now));
                        let take = |(id, _, at): &mut (ConnectionId, _, Option<_>)| {
                            *at = None;
                            *id
                        };
                        let mut expected: Vec<_> = due.map(take).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(popped, expected);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.ids().len(), model.len());
                prop_assert_eq!(table.next_timer(), model.iter().filter_map(|(.., at)| *at).min());
                for port in 0..10 {
                    let known = model.iter().find(|(_, other, _)| *other == flow(port));
                    prop_assert_eq!(table.find(&flow(port)), known.map(|(id, ..)| *id));
                }
            }
        }
    }
}
