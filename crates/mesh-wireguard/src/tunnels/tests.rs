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
        let (sent, received) = (&mut self.sent, &mut self.received);
        let from = Some(Ipv4Addr::LOCALHOST.into());
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

#[test]
fn a_flood_of_handshakes_is_sent_cookies() {
    let mut other = End::new(2);
    let mut flood = (0..=HANDSHAKES_PER_SECOND_MAX).map(|_| {
        let mut one = End::new(1);
        one.send(other.key, &packet(0));
        let initiation = one.take_sent().remove(0);
        other.receive(&initiation, one.key).err()
    });
    assert!(flood.any(|error| error == Some(DatagramError::UnderLoad)));
    drop(flood);
    assert!(other.sent.iter().any(|(to, _)| to.is_none()), "a cookie");
}

proptest! {
    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..6_u8) {
        let (one, mut other) = pair();
        let mut datagram = vec![kind, 0, 0, 0];
        datagram.extend(bytes);
        prop_assert!(other.receive(&datagram, one.key).is_err());
        prop_assert!(other.received.is_empty());
    }
}
