use proptest::prelude::*;

use super::*;
use crate::{LEARNT_MAX, NETMAP_ENDPOINTS_MAX, PING_BURST, PING_REFILL, PING_TIMEOUT, TRUST};

const HOME: DerpRegionId = DerpRegionId(1);
const OTHER: DerpRegionId = DerpRegionId(2);
const RELAY: Way = Way::Relay(HOME);

fn addr(number: u16) -> SocketAddr {
    ([1, 2, 3, 4], number).into()
}

fn udp(number: u16) -> Way {
    Way::Udp(addr(number))
}

/// A path on a clock of its own, with what it sends.
#[derive(Debug)]
struct Lab {
    path: PeerPath,
    now: Instant,
    names: u64,
    /// Pings since the last look, where they went and as what.
    pings: Vec<(u16, TransactionId)>,
    pongs: Vec<Way>,
    calls: Vec<Way>,
}

impl Lab {
    fn new(endpoints: &[u16]) -> Self {
        let now = Instant::now();
        let mut path = PeerPath::new(now);
        let addrs: Vec<_> = endpoints.iter().copied().map(addr).collect();
        path.handle_endpoints(&addrs, now);
        path.handle_home(Some(HOME));
        Self { path, now, names: 0, pings: Vec::new(), pongs: Vec::new(), calls: Vec::new() }
    }

    /// One with a session on the direct path 1 that took 20 ms.
    fn direct() -> Self {
        let mut lab = Self::new(&[1, 2]);
        lab.send();
        lab.answer(1, 20);
        lab.check_route(Some(1), None);
        lab.forget();
        lab
    }

    /// Does what is to be done with the path, and takes what it sends.
    fn with(&mut self, input: impl FnOnce(&mut PeerPath, Instant)) {
        input(&mut self.path, self.now);
        let names = &mut self.names;
        let mut fresh = || {
            *names += 1;
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&names.to_le_bytes());
            TransactionId(bytes)
        };
        while let Some(Transmit { way, disco }) = self.path.poll_transmit(self.now, &mut fresh) {
            match (disco, way) {
                (Disco::Ping { transaction }, Way::Udp(addr)) => {
                    self.pings.push((addr.port(), transaction));
                }
                (Disco::Ping { .. }, Way::Relay(_)) => panic!("a ping by relay"),
                (Disco::Pong { .. }, way) => self.pongs.push(way),
                (Disco::CallMeMaybe, way) => self.calls.push(way),
            }
        }
    }

    fn send(&mut self) {
        self.with(PeerPath::handle_sending);
    }

    /// Lets time go by. Timers go off when they are due.
    fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.path.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.with(PeerPath::handle_timeout);
        }
        self.now = end;
    }

    fn wait_for_timer(&mut self) {
        let at = self.path.poll_timeout().expect("a timer");
        self.wait(u64::try_from((at - self.now).as_millis()).expect("not for long"));
    }

    /// Answers the last ping to an address after a while.
    fn answer(&mut self, number: u16, ms: u64) {
        let asked = self.pings.iter().rev().find(|(to, _)| *to == number);
        let (_, transaction) = *asked.expect("a ping");
        self.wait(ms);
        self.with(|path, now| assert!(path.handle_pong(udp(number), transaction, now)));
    }

    /// Where pings went since the last look.
    fn pinged(&mut self) -> Vec<u16> {
        let mut ports: Vec<_> = self.pings.drain(..).map(|(port, _)| port).collect();
        ports.sort_unstable();
        ports
    }

    fn forget(&mut self) {
        (self.pings, self.pongs, self.calls) = Default::default();
    }

    #[track_caller]
    fn check_route(&self, direct: Option<u16>, relay: Option<DerpRegionId>) {
        let expected = Route { udp: direct.map(addr), relay };
        assert_eq!(self.path.route(self.now), expected);
    }
}

#[test]
fn first_data_goes_by_relay_and_begins_the_search() {
    let mut lab = Lab::new(&[1, 2]);
    assert_eq!(lab.path.poll_timeout(), None);
    lab.check_route(None, Some(HOME));
    lab.send();
    lab.send();
    lab.check_route(None, Some(HOME));
    assert_eq!((lab.pinged(), lab.calls.as_slice()), (vec![1, 2], [RELAY].as_slice()));
    assert!(lab.path.status(lab.now).is_active);
}

#[test]
fn search_that_begins_tries_twice_and_then_now_and_again() {
    let mut lab = Lab::new(&[1]);
    let mut sent = |ms: u64, pings: usize, calls: usize| {
        lab.forget();
        lab.wait(ms - 1);
        lab.send();
        lab.wait(1);
        lab.send();
        assert_eq!((lab.pinged().len(), lab.calls.len()), (pings, calls));
    };
    sent(1, 1, 1);
    sent(998, 0, 0);
    sent(1, 1, 0);
    sent(3_999, 0, 0);
    sent(1, 1, 1);
    sent(4_999, 0, 0);
    sent(1, 1, 1);
    let mut lab = Lab::direct();
    lab.wait(2_000);
    assert!(lab.pinged().is_empty(), "a path is found");
}

#[test]
fn search_goes_on_without_a_relay_and_without_endpoints() {
    let mut lab = Lab::new(&[1]);
    lab.path.handle_home(None);
    lab.send();
    lab.check_route(None, None);
    assert_eq!((lab.pinged(), lab.calls.as_slice()), (vec![1], [].as_slice()));
    lab.answer_none_but_find_direct();

    let mut lab = Lab::new(&[]);
    lab.send();
    assert_eq!(lab.calls, [RELAY], "it is the peer's pings that tell where it is");
}

impl Lab {
    /// Pings go on until one is answered.
    fn answer_none_but_find_direct(&mut self) {
        self.wait(6_000);
        self.answer(1, 10);
        self.check_route(Some(1), None);
    }
}

#[test]
fn answered_path_carries_data_alone_until_trust_lapses() {
    let mut lab = Lab::direct();
    let status = lab.path.status(lab.now);
    assert_eq!(status.latency, Some(Duration::from_millis(20)));
    lab.wait(6_499);
    lab.check_route(Some(1), None);
    lab.wait(1);
    lab.check_route(Some(1), Some(HOME));
    lab.wait(1_500);
    lab.check_route(None, Some(HOME));
    assert_eq!(lab.path.status(lab.now).latency, None);
}

#[test]
fn path_that_died_is_sought_and_comes_back() {
    let mut lab = Lab::direct();
    lab.wait(8_000);
    assert_eq!(lab.pinged(), [1, 1], "heartbeats");
    lab.wait(1_500);
    assert_eq!(lab.pings.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2], "a search");
    assert_eq!(lab.calls, [RELAY]);
    lab.answer(2, 30);
    lab.check_route(Some(2), None);
}

impl Lab {
    /// Answers every heartbeat of path 1, and sends data, for a while.
    fn keep_up(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.send();
            self.wait(1_000);
            if self.pings.iter().any(|(to, _)| *to == 1) {
                self.answer(1, 0);
                self.pings.retain(|(to, _)| *to != 1);
            }
        }
    }
}

#[test]
fn better_path_is_sought_once_a_minute_unless_the_path_is_good_enough() {
    let mut lab = Lab::direct();
    // Heartbeats are answered at the end of their second, so that latency is not good.
    lab.keep_up(59);
    assert_eq!((lab.pinged(), lab.calls.len()), (vec![], 0));
    lab.keep_up(4);
    assert_eq!((lab.pinged(), lab.calls.len()), (vec![2], 1));

    let mut lab = Lab::new(&[1, 2]);
    lab.send();
    lab.answer(1, 5);
    lab.forget();
    for _ in 0..60 {
        lab.send();
        while lab.pings.is_empty() {
            lab.wait_for_timer();
        }
        lab.answer(1, 5);
        assert!(lab.pinged().iter().all(|port| *port == 1));
    }
    assert!(lab.calls.is_empty());
}

#[test]
fn better_path_takes_over_and_worse_one_does_not() {
    let mut lab = Lab::new(&[1, 2, 3]);
    lab.send();
    lab.answer(2, 20);
    lab.check_route(Some(2), None);
    lab.answer(3, 10);
    lab.check_route(Some(2), None);
    lab.with(|path, now| path.handle_call_me_maybe(&[], RELAY, now));
    lab.answer(1, 10);
    lab.check_route(Some(1), None);
    lab.answer(2, 5);
    lab.check_route(Some(1), None);
}

#[test]
fn idle_session_sends_nothing_and_sets_no_timer() {
    let mut lab = Lab::direct();
    lab.wait(45_000);
    lab.forget();
    assert!(lab.path.poll_timeout().is_some());
    lab.wait(3_000);
    assert_eq!(lab.path.poll_timeout(), None);
    assert!(lab.pinged().is_empty() && !lab.path.status(lab.now).is_active);
}

#[test]
fn session_that_begins_again_tries_the_old_path_beside_the_relay() {
    let mut lab = Lab::direct();
    for _ in 0..14 {
        lab.wait(3_000);
        lab.answer(1, 0);
    }
    lab.wait(3_000);
    lab.answer(1, 0);
    lab.forget();
    lab.wait(3_600_000);
    lab.check_route(Some(1), Some(HOME));
    lab.send();
    assert_eq!((lab.pinged(), lab.calls.len()), (vec![1, 2], 1));
}

#[test]
fn pongs_count_only_for_pings_that_wait_and_not_by_relay() {
    let mut lab = Lab::new(&[1, 2]);
    lab.send();
    let [(_, first), (_, second)] = *lab.pings.as_slice() else { panic!("two pings") };
    let now = lab.now;
    let mut pong = |way, transaction, ms| {
        lab.path.handle_pong(way, transaction, now + Duration::from_millis(ms))
    };
    assert!(!pong(udp(1), TransactionId([9; 12]), 1), "never asked");
    assert!(!pong(RELAY, first, 1), "it proves nothing of the path");
    assert!(pong(udp(9), first, 2), "a peer of several addresses");
    assert!(!pong(udp(1), first, 3), "once");
    assert!(!pong(udp(2), second, 5_001), "too late");
    lab.check_route(Some(1), None);
}

#[test]
fn pings_are_answered_the_way_they_came() {
    let mut lab = Lab::new(&[]);
    let transaction = TransactionId([5; 12]);
    let mut check = |way, src: &str| {
        lab.path.handle_ping(way, transaction, lab.now);
        let src = src.parse().expect("an address");
        let transmit = lab.path.poll_transmit(lab.now, &mut || panic!("a ping"));
        assert_eq!(transmit, Some(Transmit { way, disco: Disco::Pong { transaction, src } }));
    };
    check(udp(7), "1.2.3.4:7");
    check(RELAY, "127.3.3.40:1");
    check(Way::Relay(DerpRegionId(70_000)), "127.3.3.40:0");
    lab.with(|path, now| (0..100).for_each(|_| path.handle_ping(RELAY, transaction, now)));
    assert_eq!(lab.pongs.len(), PONGS_MAX);
    assert_eq!(lab.path.poll_timeout(), None, "who only answers keeps no timer");
}

#[test]
fn peer_that_pings_from_an_unknown_address_is_pinged_there_while_a_path_is_sought() {
    let transaction = TransactionId([5; 12]);
    let mut lab = Lab::new(&[]);
    lab.with(|path, now| path.handle_ping(udp(7), transaction, now));
    assert!(lab.pinged().is_empty(), "no session");
    lab.send();
    assert_eq!(lab.pinged(), [7]);
    lab.with(|path, now| path.handle_ping(udp(8), transaction, now));
    lab.with(|path, now| path.handle_received(udp(9), now));
    assert_eq!(lab.pinged(), [8, 9]);
    lab.with(|path, now| path.handle_received(udp(9), now));
    assert!(lab.pinged().is_empty(), "data of a known address asks for nothing");
    lab.with(|path, now| path.handle_ping(udp(8), transaction, now));
    lab.answer(8, 10);
    lab.forget();
    lab.with(|path, now| path.handle_ping(udp(6), transaction, now));
    assert!(lab.pinged().is_empty(), "a path is trusted");
}

#[test]
fn call_is_answered_by_pings_to_all_that_is_known() {
    let mut lab = Lab::new(&[1]);
    lab.with(|path, now| path.handle_call_me_maybe(&[addr(2), addr(3)], udp(1), now));
    assert!(lab.pinged().is_empty(), "calls by UDP are nothing");
    lab.with(|path, now| path.handle_call_me_maybe(&[addr(2), addr(3)], RELAY, now));
    assert_eq!(lab.pinged(), [1, 2, 3]);
    assert_eq!((lab.calls.len(), lab.path.poll_timeout()), (0, None));
    lab.send();
    assert_eq!((lab.pinged(), lab.calls.len()), (vec![], 1), "to open the peer's firewall");
}

#[test]
fn call_has_the_path_in_use_prove_itself() {
    let mut lab = Lab::direct();
    lab.with(|path, now| path.handle_call_me_maybe(&[addr(3)], RELAY, now));
    assert_eq!(lab.pings.len(), 3);
    lab.wait(999);
    lab.check_route(Some(1), None);
    lab.answer(1, 0);
    lab.wait(5_000);
    lab.check_route(Some(1), None);

    let mut lab = Lab::direct();
    lab.with(|path, now| path.handle_call_me_maybe(&[addr(3)], RELAY, now));
    lab.wait(1_000);
    lab.check_route(Some(1), Some(HOME));
    lab.answer(3, 0);
    lab.check_route(Some(3), None);
}

#[test]
fn pong_to_a_ping_from_before_the_doubt_proves_nothing() {
    let mut lab = Lab::direct();
    lab.wait(3_000);
    let [(1, before)] = *lab.pings.as_slice() else { panic!("a heartbeat") };
    lab.with(|path, now| path.handle_call_me_maybe(&[], RELAY, now));
    lab.with(|path, now| assert!(!path.handle_pong(udp(1), before, now)));
}

#[test]
fn path_that_the_netmap_withdraws_has_to_prove_itself() {
    let mut lab = Lab::direct();
    lab.with(|path, now| path.handle_endpoints(&[addr(2)], now));
    assert_eq!(lab.pings.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1]);
    lab.wait(1_000);
    lab.check_route(Some(1), Some(HOME));
    lab.answer(1, 0);
    lab.check_route(Some(1), None);
}

#[test]
fn endpoints_that_come_while_a_path_is_sought_are_pinged_at_once() {
    let mut lab = Lab::new(&[1]);
    lab.send();
    lab.forget();
    lab.with(|path, now| path.handle_endpoints(&[addr(1), addr(2)], now));
    assert_eq!(lab.pinged(), [2]);
}

#[test]
fn other_network_opens_all_anew_but_drops_nothing() {
    let mut lab = Lab::direct();
    lab.wait(3_000);
    let before = lab.pings.clone();
    lab.forget();
    lab.with(PeerPath::handle_link_changed);
    assert_eq!((lab.pinged(), lab.calls.len()), (vec![1, 2], 1));
    lab.check_route(Some(1), Some(HOME));
    for (to, transaction) in before {
        lab.with(|path, now| assert!(!path.handle_pong(udp(to), transaction, now)));
    }
    lab.wait(5_000);
    lab.check_route(None, Some(HOME));

    let mut idle = Lab::new(&[1]);
    idle.with(PeerPath::handle_link_changed);
    assert!(idle.pinged().is_empty() && idle.calls.is_empty());
}

#[test]
fn path_that_cannot_be_sent_on_is_left_at_once() {
    let mut lab = Lab::direct();
    lab.with(|path, now| path.handle_send_failed(addr(2), now));
    lab.check_route(Some(1), None);
    lab.wait(2_000);
    lab.with(|path, now| path.handle_send_failed(addr(1), now));
    lab.check_route(None, Some(HOME));
    lab.wait(4_000);
    assert_eq!(lab.pinged(), [1, 2], "and sought");
}

#[test]
fn relay_where_the_peer_was_heard_takes_the_place_of_an_empty_home() {
    let mut lab = Lab::new(&[]);
    lab.with(|path, now| path.handle_received(Way::Relay(OTHER), now));
    lab.check_route(None, Some(HOME));
    lab.path.handle_relay_gone(HOME);
    lab.check_route(None, Some(OTHER));
    lab.path.handle_home(Some(OTHER));
    lab.check_route(None, Some(OTHER));
}

#[test]
fn machine_that_slept_finds_its_session_over() {
    let mut lab = Lab::direct();
    lab.now += Duration::from_mins(10);
    lab.with(PeerPath::handle_timeout);
    assert_eq!((lab.pinged(), lab.path.poll_timeout()), (vec![], None));
}

#[test]
fn path_is_small() {
    assert!(size_of::<PeerPath>() <= 320, "{}", size_of::<PeerPath>());
}

/// What may come from the network and its users.
#[derive(Debug, Clone)]
enum Event {
    Endpoints(Vec<u16>),
    Send,
    Ping(Way),
    /// A pong to one of the last pings, or to none.
    Pong(Way, usize),
    Call(Vec<u16>),
    Received(Way),
    SendFailed(u16),
    LinkChanged,
    Wait(u64),
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![3 => (1_u16..120).prop_map(udp), 1 => Just(RELAY), 1 => Just(Way::Relay(OTHER))]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => prop::collection::vec(1_u16..90, 0..60).prop_map(Event::Endpoints),
        6 => Just(Event::Send),
        4 => way().prop_map(Event::Ping),
        8 => (way(), 0_usize..30).prop_map(|(way, index)| Event::Pong(way, index)),
        2 => prop::collection::vec(1_u16..120, 0..60).prop_map(Event::Call),
        4 => way().prop_map(Event::Received),
        1 => (1_u16..120).prop_map(Event::SendFailed),
        1 => Just(Event::LinkChanged),
        8 => (0_u64..900).prop_map(Event::Wait),
        1 => (0_u64..60_000).prop_map(Event::Wait),
    ]
}

/// What is known of the pings that left, to judge the path by.
#[derive(Debug, Default)]
struct Ledger {
    /// Each ping: when it left, where to, as what, and when its pong was taken.
    pings: Vec<(Instant, u16, TransactionId, Option<Instant>)>,
}

impl Ledger {
    fn note(&mut self, lab: &mut Lab) -> Result<(), TestCaseError> {
        for (port, transaction) in lab.pings.drain(..) {
            self.pings.push((lab.now, port, transaction, None));
        }
        for (count, ping) in (1_u32..).zip(self.pings.iter().rev().take(200)) {
            let allowed = PING_REFILL * count.saturating_sub(PING_BURST);
            prop_assert!(lab.now - ping.0 >= allowed, "{count} pings");
        }
        Ok(())
    }

    /// The path in use has answered; and it carries data alone only while the answer is young.
    fn judge(&self, lab: &Lab) -> Result<(), TestCaseError> {
        let route = lab.path.route(lab.now);
        let Some(udp) = route.udp else { return Ok(()) };
        let to_it = self.pings.iter().filter(|ping| addr(ping.1) == udp);
        let answered_at = to_it.filter_map(|ping| ping.3).max();
        prop_assert!(answered_at.is_some(), "{udp} never answered");
        if route.relay.is_none() {
            prop_assert!(answered_at.is_some_and(|at| lab.now - at < TRUST), "{udp} is trusted");
        }
        Ok(())
    }
}

fn play(lab: &mut Lab, ledger: &mut Ledger, event: Event) {
    let addrs = |ports: Vec<u16>| ports.into_iter().map(addr).collect::<Vec<_>>();
    match event {
        Event::Endpoints(ports) => {
            lab.with(|path, now| path.handle_endpoints(&addrs(ports), now));
        }
        Event::Send => lab.send(),
        Event::Ping(way) => {
            lab.with(|path, now| path.handle_ping(way, TransactionId([1; 12]), now));
        }
        Event::Pong(way, index) => {
            let count = ledger.pings.len();
            let Some(ping) = ledger.pings.get_mut((count + index).saturating_sub(25)) else {
                let unknown = TransactionId([0xff; 12]);
                return lab.with(|path, now| assert!(!path.handle_pong(way, unknown, now)));
            };
            let is_first = ping.3.is_none();
            lab.with(|path, now| {
                if path.handle_pong(way, ping.2, now) {
                    assert!(is_first && matches!(way, Way::Udp(_)));
                    assert!(now - ping.0 <= PING_TIMEOUT);
                    ping.3 = Some(now);
                }
            });
        }
        Event::Call(ports) => {
            lab.with(|path, now| path.handle_call_me_maybe(&addrs(ports), RELAY, now));
        }
        Event::Received(way) => lab.with(|path, now| path.handle_received(way, now)),
        Event::SendFailed(port) => {
            lab.with(|path, now| path.handle_send_failed(addr(port), now));
        }
        Event::LinkChanged => lab.with(PeerPath::handle_link_changed),
        Event::Wait(_) => unreachable!("time is the caller's"),
    }
}

/// Waits in steps from timer to timer, so that each ping is noted when it leaves.
fn wait(lab: &mut Lab, ledger: &mut Ledger, ms: u64) -> Result<(), TestCaseError> {
    let end = lab.now + Duration::from_millis(ms);
    while let Some(at) = lab.path.poll_timeout().filter(|at| *at <= end) {
        prop_assert!(at >= lab.now, "a timer in the past");
        lab.now = at;
        lab.with(PeerPath::handle_timeout);
        ledger.note(lab)?;
    }
    lab.now = end;
    Ok(())
}

proptest! {
    #[test]
    fn whatever_happens_limits_hold_and_only_what_answers_is_used(
        events in prop::collection::vec(event(), 0..150),
    ) {
        let (mut lab, mut ledger) = (Lab::new(&[1, 2]), Ledger::default());
        for event in events {
            if let Event::Wait(ms) = event {
                wait(&mut lab, &mut ledger, ms)?;
            } else {
                play(&mut lab, &mut ledger, event);
            }
            ledger.note(&mut lab)?;
            ledger.judge(&lab)?;
            let in_flight = PING_TIMEOUT.as_millis() / PING_REFILL.as_millis();
            prop_assert!(lab.path.pings.waiting() <= PING_BURST as usize + 1 + in_flight as usize);
            prop_assert!(NETMAP_ENDPOINTS_MAX + LEARNT_MAX <= PING_BURST as usize);
        }
        // Whatever went on, a minute without data ends it all.
        wait(&mut lab, &mut ledger, 60_000)?;
        prop_assert_eq!(lab.path.poll_timeout(), None);
    }
}
