use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// One end: its tunnels, and what came out of them.
struct End {
    key: NodePublic,
    tunnels: Tunnels,
    /// Datagrams to send, with whom they are for; `None` is whoever sent the last one.
    sent: Vec<(Option<NodePublic>, Vec<u8>)>,
    received: Vec<(NodePublic, Vec<u8>)>,
}

impl End {
    fn new(seed: u8) -> Self {
        let private = NodePrivate::from_bytes([seed; 32]);
        let (sent, received) = (Vec::new(), Vec::new());
        Self { key: private.public(), tunnels: Tunnels::new(&private), sent, received }
    }

    fn send(&mut self, to: NodePublic, packet: &[u8]) {
        let sent = &mut self.sent;
        self.tunnels.encapsulate(&to, packet, |output| match output {
            Output::Datagram { peer, bytes } => sent.push((Some(peer), bytes.to_vec())),
            Output::Packet { .. } | Output::Cookie(_) => panic!("{output:?} of a packet to send"),
        });
    }

    fn receive(&mut self, datagram: &[u8], peer: NodePublic) -> Result<NodePublic, DatagramError> {
        self.receive_from(Some(Ipv4Addr::LOCALHOST.into()), datagram, peer)
    }

    fn receive_from(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        peer: NodePublic,
    ) -> Result<NodePublic, DatagramError> {
        let (sent, received) = (&mut self.sent, &mut self.received);
        self.tunnels.decapsulate(
            from,
            datagram,
            |key| *key == peer,
            |output| match output {
                Output::Datagram { peer, bytes } => sent.push((Some(peer), bytes.to_vec())),
                Output::Packet { peer, bytes } => received.push((peer, bytes.to_vec())),
                Output::Cookie(bytes) => sent.push((None, bytes.to_vec())),
            },
        )
    }

    /// The next handshake, sooner than a tunnel would send it by itself.
    fn initiate_again(&mut self, to: NodePublic) -> Vec<u8> {
        let slot = self.tunnels.slot_for(&to);
        let tunnel = self.tunnels.slots[slot].as_mut().expect("a tunnel");
        let mut buffer = [0; 148];
        let result = tunnel.tunn.format_handshake_initiation(&mut buffer, true);
        let TunnResult::WriteToNetwork(initiation) = result else { panic!("{result:?}") };
        initiation.to_vec()
    }

    fn tick(&mut self) {
        let sent = &mut self.sent;
        self.tunnels.handle_tick(|output| match output {
            Output::Datagram { peer, bytes } => sent.push((Some(peer), bytes.to_vec())),
            Output::Packet { .. } | Output::Cookie(_) => panic!("{output:?} of a tick"),
        });
    }

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        self.sent.drain(..).map(|(_, datagram)| datagram).collect()
    }
}

/// Carries datagrams both ways until none is left.
fn settle(one: &mut End, other: &mut End) {
    while !(one.sent.is_empty() && other.sent.is_empty()) {
        for datagram in one.take_sent() {
            other.receive(&datagram, one.key).expect("the other takes it");
        }
        for datagram in other.take_sent() {
            one.receive(&datagram, other.key).expect("the one takes it");
        }
    }
}

/// An IPv4 packet of one byte of payload.
fn packet(payload: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 21, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([100, 64, 0, 1, 100, 64, 0, 2, payload]);
    packet
}

/// Two ends with a session between them.
fn pair() -> (End, End) {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.send(other.key, &packet(0));
    settle(&mut one, &mut other);
    assert_eq!(other.received, [(one.key, packet(0))]);
    other.received.clear();
    (one, other)
}

#[test]
fn packets_wait_for_the_handshake_and_arrive_in_order() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    for payload in 0..10 {
        one.send(other.key, &packet(payload));
    }
    assert_eq!(one.sent.len(), 1, "one handshake");
    settle(&mut one, &mut other);
    let payloads: Vec<u8> = other.received.iter().map(|(_, packet)| packet[20]).collect();
    assert_eq!(payloads, (0..10).collect::<Vec<_>>());
    other.send(one.key, &packet(99));
    settle(&mut one, &mut other);
    assert_eq!(one.received, [(other.key, packet(99))]);
    assert!(
        one.tunnels.since_handshake(&other.key).is_some_and(|since| since < Duration::from_secs(9))
    );
}

#[test]
fn two_who_call_each_other_at_once_have_a_session_at_once() {
    for first in [false, true] {
        let (mut one, mut other) = (End::new(1), End::new(2));
        one.send(other.key, &packet(1));
        other.send(one.key, &packet(2));
        let (from_one, from_other) = (one.take_sent(), other.take_sent());
        // A stock client takes no second initiation within 20 ms: none may be needed.
        let (near, far) = if first { (&mut one, &mut other) } else { (&mut other, &mut one) };
        let (to_near, to_far) = if first { (from_other, from_one) } else { (from_one, from_other) };
        near.receive(&to_near[0], far.key).expect("an initiation");
        far.receive(&to_far[0], near.key).expect("an initiation");
        for end in [&mut *near, &mut *far] {
            let kinds: Vec<u8> = end.sent.iter().map(|(_, datagram)| datagram[0]).collect();
            assert_eq!(kinds, [2], "a response and no more");
        }
        settle(&mut one, &mut other);
        assert_eq!(other.received, [(one.key, packet(1))]);
        assert_eq!(one.received, [(other.key, packet(2))]);
    }
}

/// The `tailscale` crate answers every copy of an initiation, stock clients now and then two.
#[test]
fn one_whose_initiation_was_answered_twice_begins_again_at_the_next_tick() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.send(other.key, &packet(1));
    let initiation = one.take_sent().remove(0);
    other.receive(&initiation, one.key).expect("an initiation");
    let answer = other.take_sent().remove(0);
    one.receive(&answer, other.key).expect("its answer");
    one.take_sent();
    assert!(one.receive(&answer, other.key).is_err());
    one.tick();
    assert_eq!(one.sent.len(), 1, "another handshake");
    settle(&mut one, &mut other);
    assert!(one.receive(&answer, other.key).is_err());
    one.tick();
    assert!(one.sent.is_empty(), "an answer of long ago");
    one.send(other.key, &packet(3));
    settle(&mut one, &mut other);
    assert_eq!(other.received.last(), Some(&(one.key, packet(3))));
}

#[test]
fn who_may_have_been_started_anew_is_called_at_the_next_tick() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.tunnels.renew(&other.key);
    one.send(other.key, &packet(1));
    settle(&mut one, &mut other);
    one.tick();
    assert!(one.sent.is_empty(), "without a tunnel there was nothing to renew");
    other = End::new(2);
    one.tunnels.renew(&other.key);
    one.tick();
    settle(&mut one, &mut other);
    one.send(other.key, &packet(2));
    settle(&mut one, &mut other);
    assert_eq!(other.received, [(one.key, packet(2))]);
}

#[test]
fn packets_of_the_one_called_wait_for_the_caller() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    other.send(one.key, &packet(2));
    // Its own initiation is lost.
    other.take_sent();
    one.send(other.key, &packet(1));
    settle(&mut one, &mut other);
    assert_eq!(other.received, [(one.key, packet(1))]);
    assert_eq!(one.received, [(other.key, packet(2))]);
}

#[test]
fn three_peers_do_not_get_each_others_packets() {
    let (mut hub, mut one, mut other) = (End::new(1), End::new(2), End::new(3));
    for spoke in [&mut one, &mut other] {
        hub.send(spoke.key, &packet(spoke.key.as_bytes()[0]));
        settle(&mut hub, spoke);
        assert_eq!(spoke.received, [(hub.key, packet(spoke.key.as_bytes()[0]))]);
    }
    one.send(hub.key, &packet(7));
    let datagrams = one.take_sent();
    assert_eq!(other.receive(&datagrams[0], one.key), Err(DatagramError::Refused));
    assert_eq!(hub.receive(&datagrams[0], one.key), Ok(one.key));
}

#[test]
fn a_key_that_is_no_peers_gets_no_tunnel() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.send(other.key, &packet(0));
    let initiation = one.take_sent().remove(0);
    assert_eq!(other.receive(&initiation, End::new(3).key), Err(DatagramError::UnknownPeer));
    assert!(!other.tunnels.is_active() && other.sent.is_empty());
}

#[test]
fn nothing_passes_twice_or_altered() {
    let (mut one, mut other) = pair();
    one.send(other.key, &packet(1));
    let datagram = one.take_sent().remove(0);
    let mut altered = datagram.clone();
    altered[20] ^= 1;
    assert_eq!(other.receive(&altered, one.key), Err(DatagramError::Refused));
    assert_eq!(other.receive(&datagram, one.key), Ok(one.key));
    assert_eq!(other.receive(&datagram, one.key), Err(DatagramError::Refused));
    assert_eq!(other.received.len(), 1);
}

#[test]
fn what_a_removed_peer_still_sends_comes_to_nothing() {
    let (mut one, mut other) = pair();
    other.tunnels.remove(&one.key);
    one.send(other.key, &packet(1));
    let datagram = one.take_sent().remove(0);
    assert_eq!(other.receive(&datagram, one.key), Err(DatagramError::NoTunnel));
    // Another takes its place in the table, and is not mistaken for it.
    let mut third = End::new(3);
    other.send(third.key, &packet(2));
    settle(&mut other, &mut third);
    assert!(other.receive(&datagram, one.key).is_err());
    assert!(other.received.is_empty());
}

/// An end that has had more handshakes within a second than it takes from anybody.
fn flooded() -> End {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.send(other.key, &packet(0));
    let initiation = one.take_sent().remove(0);
    let mut flood = (0..=HANDSHAKES_PER_SECOND_MAX)
        .map(|_| other.receive(&initiation, End::new(3).key).expect_err("no peer's"));
    assert!(flood.any(|error| error == DatagramError::UnderLoad));
    drop(flood);
    other
}

#[test]
fn whoever_shows_its_cookie_gets_through_a_flood() {
    let (mut one, mut other) = (End::new(1), flooded());
    other.sent.clear();
    one.send(other.key, &packet(0));
    let initiation = one.take_sent().remove(0);
    assert_eq!(other.receive(&initiation, one.key), Err(DatagramError::UnderLoad));
    let cookie = other.sent.remove(0);
    assert_eq!(cookie.0, None);
    let mut forged = cookie.1.clone();
    forged[60] ^= 1;
    assert!(one.receive(&forged, other.key).is_err());
    assert_eq!(one.receive(&cookie.1, other.key), Ok(other.key));
    let again = one.initiate_again(other.key);
    let elsewhere = Some(Ipv4Addr::BROADCAST.into());
    assert_eq!(other.receive_from(elsewhere, &again, one.key), Err(DatagramError::UnderLoad));
    assert_eq!(other.receive(&again, one.key), Ok(one.key));
}

#[test]
fn flood_that_is_over_keeps_nobody_out() {
    let (mut one, mut other) = (End::new(1), flooded());
    assert!(!other.tunnels.is_active(), "nobody ticks");
    one.send(other.key, &packet(0));
    let initiation = one.take_sent().remove(0);
    let through_relay = |other: &mut End| other.receive_from(None, &initiation, one.key);
    assert_eq!(through_relay(&mut other), Err(DatagramError::UnderLoad));
    std::thread::sleep(Duration::from_millis(1001));
    assert_eq!(through_relay(&mut other), Ok(one.key));
}

#[test]
fn handshake_that_comes_again_is_refused() {
    let (mut one, mut other) = (End::new(1), End::new(2));
    one.send(other.key, &packet(0));
    let initiation = one.take_sent().remove(0);
    assert_eq!(other.receive(&initiation, one.key), Ok(one.key));
    assert_eq!(other.receive(&initiation, one.key), Err(DatagramError::Refused));
    let response = other.take_sent().remove(0);
    assert_eq!(one.receive(&response, other.key), Ok(other.key));
    assert!(one.receive(&response, other.key).is_err());
    settle(&mut one, &mut other);
    assert_eq!(other.received, [(one.key, packet(0))]);
}

/// What somebody on the way does to a datagram.
#[derive(Debug, Clone)]
enum Harm {
    Flip { position: proptest::sample::Index, mask: u8 },
    Cut(proptest::sample::Index),
    Extend(Vec<u8>),
}

impl Harm {
    /// The datagram, harmed where WireGuard must notice it: the last 16 bytes of a handshake count under load only.
    fn apply(&self, datagram: &[u8]) -> Vec<u8> {
        let mut harmed = datagram.to_vec();
        let is_handshake = datagram[0] < 3;
        let covered = datagram.len() - if is_handshake { 16 } else { 0 };
        match self {
            Self::Flip { position, mask } => harmed[position.index(covered)] ^= mask,
            Self::Cut(length) => harmed.truncate(length.index(datagram.len())),
            Self::Extend(bytes) => harmed.extend(bytes),
        }
        harmed
    }
}

fn any_harm() -> impl Strategy<Value = Harm> {
    let position = any::<proptest::sample::Index>;
    prop_oneof![
        (position(), 1..=u8::MAX).prop_map(|(position, mask)| Harm::Flip { position, mask }),
        position().prop_map(Harm::Cut),
        proptest::collection::vec(any::<u8>(), 1..50).prop_map(Harm::Extend),
    ]
}

/// Carries each datagram harmed first, then as it is.
fn carry_harmed(from: &mut End, to: &mut End, harms: &[Harm]) {
    for datagram in from.take_sent() {
        for harm in harms {
            assert!(to.receive(&harm.apply(&datagram), from.key).is_err(), "{harm:?}");
        }
        to.receive(&datagram, from.key).expect("it is as it was sent");
    }
}

proptest! {
    #[test]
    fn harmed_datagrams_are_refused_and_hinder_nothing(
        harms in proptest::collection::vec(any_harm(), 1..4),
    ) {
        let (mut one, mut other) = (End::new(1), End::new(2));
        one.send(other.key, &packet(0));
        while !(one.sent.is_empty() && other.sent.is_empty()) {
            carry_harmed(&mut one, &mut other, &harms);
            carry_harmed(&mut other, &mut one, &harms);
        }
        prop_assert_eq!(other.received, [(one.key, packet(0))]);
    }

    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..6_u8) {
        let (one, mut other) = pair();
        let mut datagram = vec![kind, 0, 0, 0];
        datagram.extend(bytes);
        prop_assert!(other.receive(&datagram, one.key).is_err());
        prop_assert!(other.received.is_empty());
    }
}
