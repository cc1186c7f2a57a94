//! Which sockets have something, and what time it is.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Sockets that are told of at once.
const EVENTS_MAX: usize = 256;

/// What the quiet lane is called among the sockets of the crowd, whose numbers are lower.
const QUIET: u64 = u64::MAX;

/// How long a wait may take.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Who is heard first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The crowd.
    Bulk = 0,
    /// Those whose latency is measured: the bench's own work for the crowd must not be part of it.
    Quiet = 1,
}

/// Number of [`Lane`]s.
pub(crate) const LANES: usize = 2;

/// What a socket is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// Watches sockets, in two lanes.
pub(crate) struct Poller {
    lanes: [OwnedFd; LANES],
    events: Vec<Event>,
    started_at: Instant,
}

impl Poller {
    pub(crate) fn new() -> std::io::Result<Self> {
        let lanes = [epoll::create(CreateFlags::CLOEXEC)?, epoll::create(CreateFlags::CLOEXEC)?];
        let [bulk, quiet] = &lanes;
        epoll::add(bulk, quiet, EventData::new_u64(QUIET), EventFlags::IN)?;
        let events = Vec::with_capacity(EVENTS_MAX);
        Ok(Self { lanes, events, started_at: Instant::now() })
    }

    /// Nanoseconds of the run.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn add(
        &self,
        lane: Lane,
        client: usize,
        socket: &TcpStream,
        interest: Interest,
    ) -> std::io::Result<()> {
        let data = EventData::new_u64(client as u64);
        Ok(epoll::add(&self.lanes[lane as usize], socket, data, interest.flags())?)
    }

    pub(crate) fn change(
        &self,
        lane: Lane,
        client: usize,
        socket: &TcpStream,
        interest: Interest,
    ) -> std::io::Result<()> {
        let data = EventData::new_u64(client as u64);
        Ok(epoll::modify(&self.lanes[lane as usize], socket, data, interest.flags())?)
    }

    pub(crate) fn remove(&self, lane: Lane, socket: &TcpStream) -> std::io::Result<()> {
        Ok(epoll::delete(&self.lanes[lane as usize], socket)?)
    }

    /// Waits some milliseconds for sockets and puts the clients of the crowd that have something into `ready`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<usize>) -> std::io::Result<()> {
        self.poll(Lane::Bulk, &WAIT, ready)
    }

    /// Puts the clients of a lane that have something into `ready`, without waiting.
    pub(crate) fn look_at(&mut self, lane: Lane, ready: &mut Vec<usize>) -> std::io::Result<()> {
        self.poll(lane, &Timespec::default(), ready)
    }

    fn poll(
        &mut self,
        lane: Lane,
        timeout: &Timespec,
        ready: &mut Vec<usize>,
    ) -> std::io::Result<()> {
        ready.clear();
        self.events.clear();
        let events = spare_capacity(&mut self.events);
        match epoll::wait(&self.lanes[lane as usize], events, Some(timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let numbers = self.events.iter().map(|event| event.data.u64());
        ready.extend(
            numbers
                .filter(|number| *number != QUIET)
                .map(|number| usize::try_from(number).expect("invariant: it was a usize")),
        );
        Ok(())
    }
}
