//! One TCP connection in the stack: who has it, and what it waits for.

use smoltcp::time::Instant;

use crate::listen::ListenKey;
use crate::packet::Flow;
use crate::tcp::{Outlook, Tcp};

/// Who has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody yet: the handshake is under way.
    Arriving(ListenKey),
    /// The listener, until a program accepts it.
    Waiting(ListenKey),
    /// A program, also while it connects.
    Held,
    /// Nobody any more: what was written is still delivered.
    Orphaned,
}

/// A TCP connection from its first SYN on.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) tcp: Tcp,
    pub(crate) flow: Flow,
    pub(crate) phase: Phase,
    /// Whether the program has ended its direction.
    pub(crate) is_shut_down: bool,
    /// When it ends unless its phase changes before.
    pub(crate) deadline: Option<Instant>,
    /// When it will be looked at, not later than it must be.
    pub(crate) timer: Option<Instant>,
    /// Whether it is in the queue of those that have something to send.
    pub(crate) is_ready: bool,
    /// Whether a packet for it has come since it was looked at.
    pub(crate) is_touched: bool,
}

impl Connection {
    pub(crate) fn new(tcp: Tcp, flow: Flow, phase: Phase) -> Self {
        Self {
            tcp,
            flow,
            phase,
            is_shut_down: false,
            deadline: None,
            timer: None,
            is_ready: false,
            is_touched: false,
        }
    }

    /// Whether a program has it, or will.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Held)
    }

    /// Lets a FIN follow what was written.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.is_shut_down = true;
        self.tcp.shut_down(now);
    }

    /// Says what it needs next.
    pub(crate) fn review(&mut self, now: Instant) -> Outlook {
        if self.phase == Phase::Orphaned {
            self.discard();
        }
        match (self.tcp.outlook(now), self.deadline) {
            (Outlook::At(at), Some(deadline)) => Outlook::At(at.min(deadline)),
            (outlook, _) => outlook,
        }
    }

    /// Throws away what comes in that nobody will read: the peer's FIN is behind it. A peer that goes on although it
    /// has all of ours is told that nobody listens.
    fn discard(&mut self) {
        let unread = self.tcp.unread();
        self.tcp.read(|_| unread);
        if unread > 0 && self.tcp.has_delivered_all() {
            self.tcp.abort(None);
        }
    }
}
