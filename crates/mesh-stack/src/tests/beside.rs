//! A stack whose addresses are the machine's too: what nobody here waits for is the machine's.

use std::collections::BTreeSet;
use std::task::{Context, Waker};

use proptest::prelude::*;
use smoltcp::time::Instant as StackInstant;

use super::*;
use crate::inner::{Fate, Inner};
use crate::packet::Flow;

/// What `stack` leaves to the machine of these packets.
fn left(stack: &Stack, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut left = Vec::new();
    stack.receive_beside(packets, |packet| left.push(packet.to_vec()));
    left
}

/// The next packets that a stack sends.
async fn sent(outgoing: &mut Outgoing) -> Vec<Vec<u8>> {
    let mut batch = PacketBatch::new();
    within(1, outgoing.next_batch(&mut batch)).await;
    batch.packets().map(<[u8]>::to_vec).collect()
}

/// The packet by which one stack calls the other at this port.
async fn call(port: u16) -> Vec<Vec<u8>> {
    let (a, mut outgoing) = stack(&[A4]);
    let calling = tokio::spawn(async move { a.connect_tcp(None, at(B4, port)).await });
    let packets = sent(&mut outgoing).await;
    calling.abort();
    packets
}

#[tokio::test(start_paused = true)]
async fn call_that_nobody_waits_for_is_left_and_not_answered() {
    let (b, mut outgoing) = stack(&[B4]);
    let _listener = listen(&b, 80);
    assert!(left(&b, &call(80).await).is_empty());
    assert_eq!(sent(&mut outgoing).await.len(), 1);
    let packets = call(22).await;
    assert_eq!(left(&b, &packets), packets);
    let mut batch = PacketBatch::new();
    assert!(timeout(Duration::from_millis(100), outgoing.next_batch(&mut batch)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn fallback_takes_what_it_wants_and_leaves_the_rest() {
    let (b, _outgoing) = stack(&[B4]);
    let _fallback = b.register_fallback(|_, to| to.port() == 80).expect("there is room");
    assert_eq!(left(&b, &call(80).await).len(), 0);
    assert_eq!(left(&b, &call(22).await).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pings_and_what_cannot_be_read_are_left() {
    let (a, mut outgoing) = stack(&[A4, A6]);
    let (b, _b_outgoing) = stack(&[B4, B6]);
    for ip in [B4, B6] {
        let a = a.clone();
        let ping = tokio::spawn(async move { a.ping(at(ip, 0).ip()).await });
        let packets = sent(&mut outgoing).await;
        ping.abort();
        assert_eq!(left(&b, &packets), packets);
    }
    let mut fragment = call(80).await;
    fragment[0][6] |= 0x20;
    assert_eq!(left(&b, &fragment), fragment);
}

#[tokio::test(start_paused = true)]
async fn answers_to_the_node_stay_and_answers_to_the_machine_are_left() {
    let (a, mut outgoing) = stack(&[A4]);
    let (b, mut answers) = stack(&[B4]);
    let pinging = a.clone();
    let ping = tokio::spawn(async move { pinging.ping(at(B4, 0).ip()).await });
    b.receive(sent(&mut outgoing).await);
    let answer = sent(&mut answers).await;
    let (machine, _outgoing) = stack(&[A4]);
    assert_eq!(left(&machine, &answer), answer);
    assert!(left(&a, &answer).is_empty());
    within(1, ping).await.expect("it ran").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn node_that_calls_itself_is_answered_here() {
    let (a, mut outgoing) = stack(&[A4]);
    let calling = a.clone();
    let calling = tokio::spawn(async move { calling.connect_tcp(None, at(A4, 80)).await });
    for _ in 0..2 {
        assert!(left(&a, &sent(&mut outgoing).await).is_empty());
    }
    let refused = within(1, calling).await.expect("it ran").expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

fn inner(ip: &str) -> Inner {
    let addresses = vec![at(ip, 0).ip()];
    Inner::new(&Config { addresses, ..Config::default() }, 7, StackInstant::ZERO)
}

/// A first packet from `A4` to a port of `B4`.
fn first_packet(is_udp: bool, port: u16) -> Vec<u8> {
    let (mut a, now) = (inner(A4), StackInstant::ZERO);
    if is_udp {
        let flow = Flow { local: at(A4, 4000), remote: at(B4, port) };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(a.poll_send_to(flow, b"hello", &mut cx).is_ready());
    } else {
        a.connect(None, at(B4, port), now).expect("a port is free");
    }
    let mut batch = PacketBatch::new();
    a.fill(&mut batch, now);
    batch.packets().next().expect("a packet").to_vec()
}

proptest! {
    /// The model is the set of what is listened for.
    #[test]
    fn just_what_is_listened_for_stays(
        listened in proptest::collection::btree_set((any::<bool>(), 1..6_u16), 0..6),
        packets in proptest::collection::vec((any::<bool>(), 1..6_u16), 0..12),
    ) {
        let (mut b, now) = (inner(B4), StackInstant::ZERO);
        for (is_udp, port) in &listened {
            if *is_udp {
                b.bind_udp(at(B4, *port)).expect("it is free");
            } else {
                b.listen(Network::Tcp, None, *port).expect("it is free");
            }
        }
        let listened: BTreeSet<_> = listened;
        for (is_udp, port) in packets {
            let fate = b.take(&first_packet(is_udp, port), now);
            prop_assert_eq!(fate == Fate::Taken, listened.contains(&(is_udp, port)));
        }
    }
}
