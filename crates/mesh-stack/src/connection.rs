//! One TCP connection: a smoltcp socket, who has it, and what it waits for.

use std::io;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use crate::listen::ListenKey;
use crate::packet::{Flow, Segment};
use crate::sequence::Sequence;

/// A silent connection asks this often whether its peer still is.
const KEEP_ALIVE: Duration = Duration::from_secs(30 * 60);

/// As often while a FIN is not acknowledged. smoltcp asks only when it forgets to send the FIN again, as it
/// does after duplicate acknowledgements, and then the question is the FIN.
const FIN_RETRY: Duration = Duration::from_secs(1);

/// A silent connection whose peer answers nothing for so long is over: four questions went unanswered. As
/// long as Linux and gVisor wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(130 * 60);

/// A connection is over when the peer says nothing for so long while bytes wait for it. As long as Linux
/// retransmits.
const STALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long a finished connection answers its peer while a program has it. One second less than smoltcp's own
/// time, at whose end it throws away what the program has not read yet.
const TIME_WAIT: Duration = Duration::from_secs(9);

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

/// What a connection needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing until something happens.
    Idle,
    /// To be looked at then, or now when that is past.
    At(Instant),
    /// It exchanges no packets any more, but a program may still read from it.
    Finished,
    /// All is said, only the flow must rest.
    Rests,
    /// To be forgotten.
    Over,
}

/// A TCP connection from its first SYN on.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Just the one socket: what comes in is found by flow, not by asking thousands of sockets.
    pub(crate) sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(crate) flow: Flow,
    pub(crate) phase: Phase,
    /// Whether a FIN is to follow what was written.
    pub(crate) is_shut_down: bool,
    /// Why it failed, if it did.
    pub(crate) failure: Option<io::ErrorKind>,
    /// When it ends unless its phase changes before.
    pub(crate) deadline: Option<Instant>,
    /// When it falls silent after it has finished; see [`TIME_WAIT`].
    silent_at: Option<Instant>,
    /// When it will be looked at, not later than it must be.
    pub(crate) timer: Option<Instant>,
    /// Whether it is in the queue of those that have something to send.
    pub(crate) is_ready: bool,
    /// Whether a packet for it has come since it was looked at.
    pub(crate) is_touched: bool,
    pub(crate) sequence: Sequence,
    /// Segments that came since it might acknowledge.
    pub(crate) unanswered_segments: u32,
}

/// Makes a socket with buffers of `buffer_bytes` each.
pub(crate) fn new_socket(buffer_bytes: usize) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; buffer_bytes]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_congestion_control(CongestionControl::Cubic);
    socket.set_nagle_enabled(false);
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket
}

impl Connection {
    /// Takes a socket that listens or connects.
    pub(crate) fn new(socket: Socket<'static>, flow: Flow, phase: Phase) -> Self {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            flow,
            phase,
            is_shut_down: false,
            failure: None,
            deadline: None,
            silent_at: None,
            timer: None,
            is_ready: false,
            is_touched: false,
            sequence: Sequence::default(),
            unanswered_segments: 0,
        }
    }

    pub(crate) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Whether the handshake is done.
    pub(crate) fn is_established(&self) -> bool {
        !matches!(
            self.socket().state(),
            State::Closed | State::Listen | State::SynSent | State::SynReceived
        )
    }

    /// Notes what a segment changed that found the socket in state `before`.
    pub(crate) fn note_segment(&mut self, before: State, segment: &Segment, now: Instant) {
        self.sequence.note_window(segment.closes_window);
        let state = self.socket().state();
        if segment.is_rst && state == State::Closed && before != State::Closed {
            let was_refused = before == State::SynSent;
            self.failure = Some(if was_refused {
                io::ErrorKind::ConnectionRefused
            } else {
                io::ErrorKind::ConnectionReset
            });
        }
        if state == State::TimeWait && self.silent_at.is_none() {
            self.silent_at = Some(now + TIME_WAIT);
        }
    }

    /// Whether it must not be asked for packets: a finished one would throw away what is not read yet.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.silent_at.is_some_and(|at| at <= now)
    }

    /// Lets a FIN follow what was written.
    pub(crate) fn shut_down(&mut self) {
        self.is_shut_down = true;
        self.send_fin();
    }

    /// A peer that has closed its own direction gets the FIN only behind its last acknowledgement: smoltcp
    /// takes no news about the window while it waits for the very last one, and would hang with a closed
    /// window.
    fn send_fin(&mut self) {
        let socket = self.socket_mut();
        if socket.state() != State::CloseWait || socket.send_queue() == 0 {
            socket.close();
        }
    }

    /// Says what it needs next.
    pub(crate) fn review(&mut self, interface: &mut Interface, now: Instant) -> Outlook {
        if self.is_shut_down {
            self.send_fin();
        }
        if self.phase == Phase::Orphaned {
            self.discard();
        }
        if self.is_over() || self.is_silent(now) {
            let is_wanted = matches!(self.phase, Phase::Waiting(_) | Phase::Held);
            return if is_wanted { Outlook::Finished } else { Outlook::Over };
        }
        self.set_patience();
        let at = interface.poll_at(now, &self.sockets);
        let has_more_to_say = at.is_some_and(|at| at <= now + Duration::from_secs(1));
        if self.phase == Phase::Orphaned && self.silent_at.is_some() && !has_more_to_say {
            return Outlook::Rests;
        }
        let next = [at, self.deadline, self.silent_at].into_iter().flatten().min();
        next.map_or(Outlook::Idle, Outlook::At)
    }

    /// Tells the socket how long it may wait for what.
    fn set_patience(&mut self) {
        let socket = self.socket_mut();
        let timeout = if socket.send_queue() > 0 { STALL_TIMEOUT } else { IDLE_TIMEOUT };
        socket.set_timeout(Some(timeout));
        let awaits_end =
            matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        let keep_alive = Some(if awaits_end { FIN_RETRY } else { KEEP_ALIVE });
        if socket.keep_alive() != keep_alive {
            socket.set_keep_alive(keep_alive);
        }
    }

    /// Whether no packet will be sent nor taken any more.
    fn is_over(&self) -> bool {
        let socket = self.socket();
        let was_refused = socket.state() == State::Listen;
        was_refused || (socket.state() == State::Closed && socket.remote_endpoint().is_none())
    }

    /// Throws away what comes in that nobody will read: the peer's FIN is behind it. A peer that goes on
    /// although it has all of ours is told that nobody listens.
    fn discard(&mut self) {
        let socket = self.socket_mut();
        let unread = socket.recv_queue();
        while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|read| read > 0) {}
        if unread > 0 && socket.state() == State::FinWait2 {
            socket.abort();
        }
    }
}
