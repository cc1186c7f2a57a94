use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn addr(number: u16) -> SocketAddr {
    ([1, 2, 3, 4], number).into()
}

fn endpoints(numbers: &[u16]) -> Vec<SocketAddr> {
    numbers.iter().copied().map(addr).collect()
}

fn known(candidates: &Candidates) -> Vec<u16> {
    let mut ports: Vec<_> = candidates.list.iter().map(|it| it.addr.port()).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn netmap_takes_away_only_what_is_known_from_nowhere_else() {
    let now = Instant::now();
    let mut candidates = Candidates::default();
    assert!(!candidates.set_endpoints(&endpoints(&[1, 2, 3, 4]), None, false, now));
    candidates.learn(addr(2), None, false, now);
    candidates.learn(addr(5), None, false, now);
    assert!(candidates.set_endpoints(&endpoints(&[4]), Some(addr(3)), false, now));
    assert_eq!(known(&candidates), [2, 3, 4, 5]);
    assert!(!candidates.set_endpoints(&endpoints(&[4]), Some(addr(3)), false, now), "told once");
    candidates.prune(None, now + LEARNT_FOR);
    assert_eq!(known(&candidates), [4]);
}

#[test]
fn long_call_pushes_out_what_is_older_but_not_its_own_beginning() {
    let now = Instant::now();
    let mut candidates = Candidates::default();
    candidates.learn(addr(90), None, false, now);
    candidates.learn(addr(91), None, false, now);
    for number in 1..=40 {
        candidates.learn(addr(number), Some(addr(90)), false, now + Duration::from_millis(1));
    }
    let first = 1..u16::try_from(LEARNT_MAX).expect("a few");
    assert_eq!(known(&candidates), first.chain([90]).collect::<Vec<_>>());
}

#[test]
fn wanted_addresses_come_out_once_and_the_path_in_use_first() {
    let now = Instant::now();
    let mut candidates = Candidates::default();
    candidates.set_endpoints(&endpoints(&[1, 2]), None, true, now);
    candidates.learn(addr(3), None, false, now);
    assert!(candidates.is_any_wanted());
    candidates.want(addr(3));
    candidates.want(addr(9));
    let mut taken = || candidates.take_wanted(Some(addr(2))).map(|addr| addr.port());
    assert_eq!([taken(), taken(), taken(), taken()], [Some(2), Some(1), Some(3), None]);
    assert!(!candidates.is_any_wanted());
    candidates.want_all();
    assert!(candidates.is_any_wanted());
}

#[test]
fn addresses_that_name_no_single_node_are_ignored() {
    let cases = [
        "1.2.3.4:0",
        "0.0.0.0:1",
        "[::]:1",
        "224.0.0.1:1",
        "[ff02::1]:1",
        "255.255.255.255:1",
        "[fe80::1]:1",
        "[::ffff:1.2.3.4]:1",
    ];
    let refused = cases.map(|text| text.parse().expect("an address"));
    let mut candidates = Candidates::default();
    candidates.set_endpoints(&refused, None, false, Instant::now());
    for addr in refused {
        candidates.learn(addr, None, false, Instant::now());
    }
    assert!(known(&candidates).is_empty());
    for text in ["127.0.0.1:1", "[fe80::1%2]:1", "[2001:db8::1]:1", "100.64.0.1:1"] {
        assert!(is_usable(text.parse().expect("an address")), "{text}");
    }
}

/// What happens to a set of candidates.
#[derive(Debug, Clone)]
enum Event {
    Endpoints(Vec<u16>),
    Learn(u16),
    Prune,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => prop::collection::vec(1_u16..60, 0..50).prop_map(Event::Endpoints),
        8 => (1_u16..90).prop_map(Event::Learn),
        1 => Just(Event::Prune),
        2 => (0_u64..20).prop_map(Event::Wait),
    ]
}

/// The same, without any thought of cost: what the netmap names, and when each address was learnt.
#[derive(Debug, Default)]
struct Naive {
    named: Vec<u16>,
    learnt: BTreeMap<u16, (Instant, usize)>,
}

impl Naive {
    fn prune(&mut self, now: Instant, best: u16) {
        self.learnt.retain(|port, (at, _)| now - *at < LEARNT_FOR || *port == best);
    }

    /// The netmap may withdraw addresses that were learnt before, so that more than one must go.
    fn bound(&mut self, best: u16) {
        loop {
            let extra = self.learnt.iter().filter(|(port, _)| !self.named.contains(port));
            let extra: Vec<_> = extra.map(|(port, age)| (*age, *port)).collect();
            if extra.len() <= LEARNT_MAX {
                return;
            }
            let oldest = extra.iter().filter(|(_, port)| *port != best).min();
            self.learnt.remove(&oldest.expect("one that is not the best").1);
        }
    }

    fn known(&self) -> Vec<u16> {
        let mut ports: Vec<_> = self.named.iter().chain(self.learnt.keys()).copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

proptest! {
    #[test]
    fn candidates_are_those_of_a_naive_model(events in prop::collection::vec(event(), 0..200)) {
        let best = 7;
        let mut now = Instant::now();
        let (mut candidates, mut naive) = (Candidates::default(), Naive::default());
        candidates.learn(addr(best), None, false, now);
        naive.learnt.insert(best, (now, 0));
        for (number, event) in events.into_iter().enumerate() {
            // Ages are all different, for of equals any may go.
            now += Duration::from_millis(1);
            match event {
                Event::Endpoints(ports) => {
                    candidates.set_endpoints(&endpoints(&ports), Some(addr(best)), false, now);
                    naive.named = ports.into_iter().take(NETMAP_ENDPOINTS_MAX).collect();
                    naive.prune(now, best);
                }
                Event::Learn(port) => {
                    candidates.learn(addr(port), Some(addr(best)), false, now);
                    naive.learnt.insert(port, (now, number));
                }
                Event::Prune => {
                    candidates.prune(Some(addr(best)), now);
                    naive.prune(now, best);
                }
                Event::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            naive.bound(best);
            prop_assert_eq!(known(&candidates), naive.known());
            prop_assert!(candidates.list.len() <= NETMAP_ENDPOINTS_MAX + LEARNT_MAX);
        }
    }
}
