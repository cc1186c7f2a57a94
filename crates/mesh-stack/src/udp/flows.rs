//! Flows: what comes from one source to one address where a program listens.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use smoltcp::time::{Duration, Instant};

use super::Waiting;
use crate::listen::{ACCEPT_TIMEOUT, BACKLOG_MAX, ListenKey, Listeners, Network};
use crate::packet::Flow;

/// Most flows; with more, datagrams of others are ignored.
const FLOWS_MAX: usize = 1024;

/// Most bytes that wait for one flow, counted as for a socket. With more, the oldest are dropped.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// A flow in which nothing passes for so long ends: as long as stock clients let one live that they forward.
///
/// Source: tailscale `wgengine/netstack/netstack.go`, `forwardUDP`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// The number of a flow, which no other one has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowId(u64);

/// The table of flows, and who listens for them.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) listeners: Listeners<FlowId>,
    by_id: HashMap<FlowId, FlowState>,
    by_flow: HashMap<Flow, FlowId>,
    /// `(at, id)` is here exactly if the flow's `timer` is `at`.
    timers: BTreeSet<(Instant, FlowId)>,
    next_id: u64,
}

#[derive(Debug)]
struct FlowState {
    flow: Flow,
    waiting: Waiting,
    /// Where it waits to be accepted.
    listener: Option<ListenKey>,
    ends_at: Instant,
    /// When it is looked at, not later than it ends: most ends are pushed back with every datagram.
    timer: Instant,
}

impl Flows {
    /// Takes a datagram in, if it is of a flow.
    pub(crate) fn handle(&mut self, flow: Flow, payload: &[u8], now: Instant) -> bool {
        let Some(id) = self.by_flow.get(&flow) else { return false };
        let state = self.by_id.get_mut(id).expect("invariant: by_flow names flows of by_id");
        state.waiting.push(flow.remote, payload, WAITING_BYTES_MAX);
        if state.listener.is_none() {
            state.ends_at = now + IDLE_TIMEOUT;
        }
        true
    }

    /// Begins a flow with its first datagram, if somebody listens for it. Returns whether somebody does.
    pub(crate) fn admit(&mut self, flow: Flow, payload: &[u8], is_own: bool, now: Instant) -> bool {
        let family = if flow.local.is_ipv4() { Network::Udp4 } else { Network::Udp6 };
        let listener = self.listeners.find([family, Network::Udp], flow.local, is_own);
        let Some(listener) = listener else { return false };
        if self.by_id.len() >= FLOWS_MAX || self.listeners.backlog(listener) >= BACKLOG_MAX {
            return true;
        }
        let id = FlowId(self.next_id);
        self.next_id += 1;
        let ends_at = now + ACCEPT_TIMEOUT;
        let mut waiting = Waiting::default();
        waiting.push(flow.remote, payload, WAITING_BYTES_MAX);
        let (listener_key, timer) = (Some(listener), ends_at);
        let state = FlowState { flow, waiting, listener: listener_key, ends_at, timer };
        self.by_id.insert(id, state);
        self.by_flow.insert(flow, id);
        self.timers.insert((ends_at, id));
        self.listeners.announce(listener);
        self.listeners.push(listener, id);
        true
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Ends flows whose time is over, and asks the others again later.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let state = self.by_id.get_mut(&id).expect("invariant: timers are those of flows");
            if state.ends_at <= now {
                self.remove(id);
            } else {
                state.timer = state.ends_at;
                self.timers.remove(&(at, id));
                self.timers.insert((state.timer, id));
            }
        }
    }

    /// Takes a flow that waits at a listener.
    pub(crate) fn poll_accept(
        &mut self,
        key: ListenKey,
        program: &Waker,
        now: Instant,
    ) -> Poll<(FlowId, Flow)> {
        let Some(id) = self.listeners.next_waiting(key, program) else { return Poll::Pending };
        self.listeners.withdraw(key, id);
        let state = self.by_id.get_mut(&id).expect("invariant: what waits is a flow");
        state.listener = None;
        state.ends_at = now + IDLE_TIMEOUT;
        Poll::Ready((id, state.flow))
    }

    /// Takes a datagram of an accepted flow.
    pub(crate) fn poll_receive(
        &mut self,
        id: FlowId,
        receiver: &Waker,
    ) -> Poll<io::Result<(SocketAddr, Box<[u8]>)>> {
        let Some(state) = self.by_id.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        state.waiting.poll(receiver).map(Ok)
    }

    /// Keeps an accepted flow alive; an error when it has ended.
    pub(crate) fn touch(&mut self, id: FlowId, now: Instant) -> io::Result<Flow> {
        let state = self.by_id.get_mut(&id).ok_or(io::ErrorKind::TimedOut)?;
        state.ends_at = now + IDLE_TIMEOUT;
        Ok(state.flow)
    }

    /// Ends a flow.
    pub(crate) fn remove(&mut self, id: FlowId) {
        let Some(mut state) = self.by_id.remove(&id) else { return };
        self.by_flow.remove(&state.flow);
        self.timers.remove(&(state.timer, id));
        if let Some(listener) = state.listener {
            self.listeners.withdraw(listener, id);
        }
        state.waiting.receiver.take().into_iter().for_each(Waker::wake);
    }

    /// Ends a listener, and the flows that nobody has accepted.
    pub(crate) fn close_listener(&mut self, key: ListenKey) {
        let waiting = self.by_id.iter().filter(|(_, state)| state.listener == Some(key));
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.remove(id);
        }
        self.listeners.remove(key);
    }

    pub(crate) fn wake_all(&mut self) {
        self.listeners.wake_all();
        let waiting = self.by_id.values_mut().filter_map(|state| state.waiting.receiver.take());
        waiting.for_each(Waker::wake);
    }
}
