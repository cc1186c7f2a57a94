use mesh_testkit::{Gateway, Willing};
use proptest::prelude::*;

use super::*;
use crate::message::ANSWER_BYTES_MAX;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
const PORT: u16 = 41_641;
const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

/// The port that the gateway chooses.
const PUBLIC_PORT: u16 = PORT ^ 0x8000;

/// A mapper and its gateway, at a time that is theirs.
struct World {
    mapper: Mapper,
    gateway: Gateway,
    now: Instant,
    /// Datagrams that the gateway was sent.
    asked: usize,
}

impl World {
    fn new(nat_pmp: Willing, pcp: Willing) -> Self {
        let now = Instant::now();
        let mapper = Mapper::new(OWN, PORT, NONCE, now);
        Self { mapper, gateway: Gateway::new(nat_pmp, pcp), now, asked: 0 }
    }

    /// Lets time pass: what is due is done, and what is asked is answered at once.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.mapper.poll_timeout() <= end {
            let next = self.mapper.poll_timeout().max(self.now);
            self.pass(next - self.now);
            self.mapper.handle_timeout(self.now);
            while let Some(request) = self.mapper.poll_request() {
                self.asked += 1;
                if let Some(answer) = self.gateway.answer(&request) {
                    self.mapper.handle_answer(&answer, self.now);
                }
            }
        }
        self.pass(end - self.now);
    }

    fn pass(&mut self, span: Duration) {
        let seconds = u32::try_from(span.as_secs()).expect("a short test");
        self.gateway.epoch = self.gateway.epoch.saturating_add(seconds);
        self.now += span;
    }

    fn external(&self) -> Option<SocketAddrV4> {
        self.mapper.external()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What comes of a gateway that is willing so: the mapping, who was found, and the gateway's mappings.
fn check(nat_pmp: Willing, pcp: Willing, found: [bool; 2], mapped_by_pcp: Option<bool>) {
    let mut world = World::new(nat_pmp, pcp);
    world.run(SECOND);
    let expected = mapped_by_pcp.map(|_| SocketAddrV4::new(world.gateway.public, PUBLIC_PORT));
    assert_eq!(world.external(), expected);
    let [nat_pmp, pcp] = found;
    assert_eq!(world.mapper.services(), Some(Services { nat_pmp, pcp }));
    let held = mapped_by_pcp.map(|is_pcp| ((PORT, is_pcp), PUBLIC_PORT));
    assert_eq!(world.gateway.mappings, held.into_iter().collect());
    assert!(!world.mapper.is_asking());
}

#[test]
fn a_gateway_maps_the_port_by_what_it_speaks() {
    use Willing::{No, Refuses, Yes};
    check(Yes, No, [true, false], Some(false));
    check(No, Yes, [false, true], Some(true));
    check(Yes, Yes, [true, true], Some(false));
    check(Refuses, Yes, [true, true], Some(true));
    check(Yes, Refuses, [true, true], Some(false));
    check(Refuses, Refuses, [true, true], None);
    check(No, No, [false, false], None);
}

#[test]
fn a_mapping_is_renewed_at_half_its_lifetime() {
    for (nat_pmp, pcp) in [(Willing::Yes, Willing::No), (Willing::No, Willing::Yes)] {
        let mut world = World::new(nat_pmp, pcp);
        world.gateway.lifetime_max = 600;
        world.run(SECOND);
        let external = world.external();
        assert!(external.is_some());
        world.asked = 0;
        world.run(Duration::from_secs(298));
        assert_eq!(world.asked, 0);
        world.run(SECOND * 2);
        assert_eq!((world.asked, world.external()), (1, external));
    }
}

#[test]
fn a_mapping_that_is_not_renewed_ends_with_its_time() {
    let mut world = World::new(Willing::Yes, Willing::No);
    world.run(SECOND);
    world.gateway.nat_pmp = Willing::No;
    world.run(Duration::from_mins(119));
    assert!(world.external().is_some());
    world.run(Duration::from_mins(1));
    assert_eq!(world.external(), None);
}

#[test]
fn a_gateway_that_was_started_anew_is_asked_again_at_its_next_check() {
    for (nat_pmp, pcp) in [(Willing::Yes, Willing::No), (Willing::No, Willing::Yes)] {
        let mut world = World::new(nat_pmp, pcp);
        world.run(Duration::from_mins(25));
        world.gateway.restart();
        world.run(CHECK_PERIOD);
        assert_eq!(world.gateway.mappings.len(), 1);
        assert!(world.external().is_some());
    }
}

#[test]
fn a_gateway_that_was_not_started_anew_is_not_asked_again() {
    let mut world = World::new(Willing::Yes, Willing::Yes);
    world.run(SECOND);
    world.gateway.mappings.clear();
    world.run(Duration::from_mins(59));
    assert_eq!(world.gateway.mappings.len(), 0);
}

#[test]
fn another_public_address_is_told_at_the_next_check() {
    let mut world = World::new(Willing::Yes, Willing::No);
    world.run(SECOND);
    world.gateway.public = Ipv4Addr::new(198, 51, 100, 9);
    world.run(CHECK_PERIOD);
    let expected = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), PUBLIC_PORT);
    assert_eq!(world.external(), Some(expected));
}

#[test]
fn a_mapping_is_given_back() {
    for (nat_pmp, pcp) in [(Willing::Yes, Willing::No), (Willing::No, Willing::Yes)] {
        let mut world = World::new(nat_pmp, pcp);
        assert_eq!(world.mapper.give_back(), None);
        world.run(SECOND);
        let request = world.mapper.give_back().expect("a mapping");
        world.gateway.answer(&request);
        assert_eq!(world.gateway.mappings.len(), 0);
    }
}

#[test]
fn a_mapping_that_is_of_no_use_is_none() {
    for public in [[0, 0, 0, 0], [127, 0, 0, 1], [100, 64, 0, 9], [169, 254, 1, 1], [224, 0, 0, 1]]
    {
        for (nat_pmp, pcp) in [(Willing::Yes, Willing::No), (Willing::No, Willing::Yes)] {
            let mut world = World::new(nat_pmp, pcp);
            world.gateway.public = public.into();
            world.run(SECOND);
            assert_eq!(world.external(), None, "{public:?}");
        }
    }
    let mut world = World::new(Willing::Yes, Willing::No);
    world.gateway.lifetime_max = 60;
    world.run(SECOND);
    assert_eq!(world.external(), None);
}

#[test]
fn an_answer_to_somebody_else_is_none() {
    let client = Client { own: OWN, port: PORT, nonce: NONCE };
    let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let mut gateway = Gateway::new(Willing::Yes, Willing::Yes);
    let mut is_answer = |service: Service, asking: Client| {
        let answer = gateway.answer(&service.map(&asking, anywhere, LIFETIME));
        Answer::parse(&answer.expect("a willing gateway"), &client).is_some()
    };
    assert!(is_answer(Service::NatPmp, client) && is_answer(Service::Pcp, client));
    let other_port = Client { port: PORT + 1, ..client };
    assert!(!is_answer(Service::NatPmp, other_port) && !is_answer(Service::Pcp, other_port));
    assert!(!is_answer(Service::Pcp, Client { nonce: [8; NONCE_BYTES], ..client }));
}

#[test]
fn a_day_with_a_gateway_that_is_silent_or_refuses_costs_few_datagrams() {
    for willing in [Willing::No, Willing::Refuses] {
        let mut world = World::new(willing, willing);
        world.run(Duration::from_hours(24));
        // Seven rounds in the first hour, then one an hour. Each is four datagrams: two that are sent again, or a probe and a
        // request by either protocol.
        assert_eq!(world.asked, (7 + 22) * 4);
    }
}

#[test]
fn requests_are_those_of_the_standards() {
    let client = Client { own: OWN, port: PORT, nonce: NONCE };
    let hour = Duration::from_hours(1);
    let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 1024);
    assert_eq!(Service::NatPmp.probe(&client), [0, 0]);
    assert_eq!(
        Service::NatPmp.map(&client, external, hour),
        [0, 1, 0, 0, 0xa2, 0xa9, 4, 0, 0, 0, 14, 16]
    );
    let own = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 168, 1, 20];
    assert_eq!(Service::Pcp.probe(&client), [&[2, 0, 0, 0, 0, 0, 0, 0][..], &own].concat());
    let body =
        [17, 0, 0, 0, 0xa2, 0xa9, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 7];
    assert_eq!(
        Service::Pcp.map(&client, external, hour),
        [&[2, 1, 0, 0, 0, 0, 14, 16][..], &own, &NONCE, &body].concat()
    );
}

/// A hostile gateway's next act.
#[derive(Debug, Clone)]
enum Act {
    /// It answers what it likes.
    Say(Vec<u8>),
    /// It answers as it should, with one byte changed.
    Change(usize, u8),
    Wait(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        bytes.prop_map(Act::Say),
        (0..60_usize, any::<u8>()).prop_map(|(at, byte)| Act::Change(at, byte)),
        (1..5_000_u32).prop_map(Act::Wait),
    ]
}

proptest! {
    /// Whatever a gateway says: what it is believed is of use, it is asked for little, and time goes on.
    #[test]
    fn a_hostile_gateway_gets_nowhere(acts in prop::collection::vec(act(), 1..60)) {
        let mut gateway = Gateway::new(Willing::Yes, Willing::Yes);
        let mut now = Instant::now();
        let mut mapper = Mapper::new(OWN, PORT, NONCE, now);
        let mut asked = 0;
        let mut waited = 0;
        for act in acts {
            while now >= mapper.poll_timeout() {
                mapper.handle_timeout(now);
            }
            let mut answer = Vec::new();
            while let Some(request) = mapper.poll_request() {
                asked += 1;
                prop_assert!(request.len() <= ANSWER_BYTES_MAX);
                answer = gateway.answer(&request).unwrap_or_default();
            }
            match act {
                Act::Say(bytes) => mapper.handle_answer(&bytes, now),
                Act::Change(at, byte) => {
                    if let Some(changed) = answer.get_mut(at) {
                        *changed = byte;
                    }
                    mapper.handle_answer(&answer, now);
                }
                Act::Wait(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    waited += 1;
                }
            }
            if let Some(external) = mapper.external() {
                prop_assert!(is_usable(*external.ip()) && external.port() != 0);
            }
            prop_assert!(asked <= 8 * (waited + 1));
        }
    }
}
