use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::tests::peer;
use super::*;
use crate::frame::{FrameReader, PeerGoneReason, ServerFrame};
use crate::packet::PacketKind;

fn key(number: u8) -> NodePublic {
    peer(number).key
}

fn joined(table: &Table, number: u8) -> Arc<Client> {
    table.join(peer(number), || true).expect("admitted")
}

/// One that has the mesh key.
fn relay(number: u8) -> PeerPresent {
    PeerPresent { flags: PeerPresent::MESH_PEER, ..peer(number) }
}

fn leave(table: &Table, client: &Arc<Client>) {
    table.leave(client, std::iter::empty());
    client.close();
}

/// What waits for a client: the first byte of a key, and what became of it.
fn news(client: &Client) -> Vec<(u8, &'static str)> {
    let (mut bytes, mut news) = (Vec::new(), Vec::new());
    loop {
        let before = bytes.len();
        client.drain(&mut bytes, usize::MAX);
        if bytes.len() == before {
            break;
        }
    }
    let mut rest = &bytes[..];
    while let Some(frame) = FrameReader::new().next_from_server(&mut rest).expect("frames") {
        match frame {
            ServerFrame::PeerPresent(there) => {
                assert_eq!(there.addr, peer(there.key.as_bytes()[0]).addr);
                news.push((there.key.as_bytes()[0], "here"));
            }
            ServerFrame::PeerGone { key, reason: PeerGoneReason::Disconnected } => {
                news.push((key.as_bytes()[0], "gone"));
            }
            ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_)
            | ServerFrame::RecvPacket { .. }
            | ServerFrame::KeepAlive
            | ServerFrame::PeerGone { .. }
            | ServerFrame::Ping(_)
            | ServerFrame::Pong(_) => panic!("{frame:?} is no news"),
        }
    }
    news
}

fn is_by(table: &Table, key: &NodePublic, client: &Arc<Client>) -> bool {
    table.find(key).is_some_and(|route| route.is_by(client))
}

#[test]
fn a_watcher_hears_who_is_here_and_then_who_comes_and_goes() {
    let table = Table::default();
    let (first, elsewhere) = (joined(&table, 1), Arc::new(Client::new(relay(8))));
    table.add_forwarder(key(2), &elsewhere);
    let watcher = table.join(relay(9), || true).expect("admitted");
    joined(&table, 3);
    assert_eq!(news(&watcher), []);
    table.watch(&watcher);
    assert_eq!(news(&watcher), [(1, "here"), (3, "here"), (9, "here")]);

    let again = joined(&table, 1);
    joined(&table, 4);
    table.add_forwarder(key(5), &elsewhere);
    assert_eq!(news(&watcher), [(1, "here"), (4, "here")]);
    leave(&table, &first);
    assert_eq!(news(&watcher), [], "one of two");
    leave(&table, &again);
    assert_eq!(news(&watcher), [(1, "gone")]);

    // Only how it ended is told of what it had no time to read.
    let fifth = joined(&table, 5);
    leave(&table, &fifth);
    joined(&table, 6);
    assert_eq!(news(&watcher), [(5, "gone"), (6, "here")]);
    leave(&table, &watcher);
    joined(&table, 7);
    assert!(lock(&table.sets).watchers.is_empty());
}

#[test]
fn who_has_come_is_not_said_to_be_absent_behind_that() {
    let table = Table::default();
    let watcher = table.join(relay(9), || true).expect("admitted");
    table.watch(&watcher);
    news(&watcher);
    watcher.push(|outbox| {
        outbox.push_packet(PacketKind::Data, key(1), &[0; 100]);
        outbox.push_gone(key(3), PeerGoneReason::NotHere);
        outbox.push_gone(key(4), PeerGoneReason::NotHere);
    });
    joined(&table, 3);
    let mut bytes = Vec::new();
    while !watcher.drain(&mut bytes, usize::MAX).iter().all(|tally| tally.packets == 0) {}
    let (mut rest, mut told) = (&bytes[..], Vec::new());
    while let Some(frame) = FrameReader::new().next_from_server(&mut rest).expect("frames") {
        told.push(frame);
    }
    let src = key(1);
    assert_eq!(
        told,
        [
            ServerFrame::RecvPacket { src, payload: &[0; 100] },
            ServerFrame::PeerGone { key: key(4), reason: PeerGoneReason::NotHere },
            ServerFrame::PeerPresent(peer(3)),
        ]
    );
}

#[test]
fn a_watcher_that_does_not_read_is_cut_and_costs_bounded_memory() {
    let table = Table::default();
    let watcher = table.join(relay(255), || true).expect("admitted");
    table.watch(&watcher);
    let mut left = 0;
    while !watcher.is_cut() {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&u64::to_le_bytes(left));
        let there = PeerPresent { key: NodePublic::from_bytes(bytes), ..peer(1) };
        let client = table.join(there, || true).expect("admitted");
        leave(&table, &client);
        left += 1;
        assert!(left <= 2 * WATCHER_BEHIND_MAX as u64);
    }
    assert!(left >= WATCHER_BEHIND_MAX as u64);
}

#[test]
fn all_of_many_clients_are_told_in_pieces() {
    let table = Table::default();
    for number in 0..5000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        table.join(PeerPresent { key: NodePublic::from_bytes(bytes), ..peer(0) }, || true);
    }
    let watcher = Client::new(relay(9));
    table.watch(&Arc::new(watcher));
    let watcher = Arc::clone(&lock(&table.sets).watchers[0]);
    let (mut bytes, mut pieces) = (Vec::new(), Vec::new());
    loop {
        bytes.clear();
        watcher.drain(&mut bytes, usize::MAX);
        if bytes.is_empty() {
            break;
        }
        pieces.push(bytes.len() / 56);
    }
    assert_eq!(pieces, [1024, 1024, 1024, 1024, 904]);
}

#[test]
fn a_client_here_wins_and_then_the_relay_that_has_had_it_for_longest() {
    let table = Table::default();
    let relays = [7, 8, 9].map(|number| Arc::new(Client::new(relay(number))));
    for relay in &relays {
        table.add_forwarder(key(1), relay);
        table.add_forwarder(key(1), relay);
    }
    assert!(is_by(&table, &key(1), &relays[0]) && !table.is_connected(&key(1)));
    let route = table.find(&key(1)).expect("a route");
    table.remove_forwarder(&key(1), &relays[1]);
    assert!(!route.is_stale(), "nothing better has come");
    table.remove_forwarder(&key(1), &relays[0]);
    assert!(route.is_stale() && is_by(&table, &key(1), &relays[2]));

    let client = joined(&table, 1);
    assert!(is_by(&table, &key(1), &client) && table.is_connected(&key(1)));
    table.add_forwarder(key(1), &relays[0]);
    assert!(is_by(&table, &key(1), &client));
    leave(&table, &client);
    assert!(is_by(&table, &key(1), &relays[2]));
    for relay in &relays {
        table.remove_forwarder(&key(1), relay);
    }
    assert!(table.find(&key(1)).is_none() && lock(&table.sets).by_key.is_empty());
}

#[test]
fn packets_for_another_relays_client_wait_for_that_relay_as_forwards() {
    let table = Table::default();
    let relay = Arc::new(Client::new(relay(9)));
    table.add_forwarder(key(1), &relay);
    let route = table.find(&key(1)).expect("a route");
    route.push(PacketKind::Data, key(2), key(1), b"packet", true).expect("a connection");
    let mut bytes = Vec::new();
    let [_, data] = relay.drain(&mut bytes, usize::MAX);
    assert_eq!((data.packets, data.bytes), (1, 6));
    let frame = FrameReader::new().next_from_client(&mut &bytes[..]);
    let expected =
        crate::ClientFrame::ForwardPacket { src: key(2), dst: key(1), payload: b"packet" };
    assert_eq!(frame, Ok(Some(expected)));
}

/// What happens to one key out of three, at two other relays or here.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join(u8),
    Leave(u8),
    Appear(u8, usize),
    Vanish(u8, usize),
    /// A packet from the key to our client 200.
    Send(u8),
}

fn any_event() -> impl Strategy<Value = Event> {
    (0..5_u8, 1..4_u8, 0..2_usize).prop_map(|(kind, number, relay)| match kind {
        0 => Event::Join(number),
        1 => Event::Leave(number),
        2 => Event::Appear(number, relay),
        3 => Event::Vanish(number, relay),
        _ => Event::Send(number),
    })
}

/// A key in the most naive way.
#[derive(Debug, Default)]
struct Naive {
    here: Vec<Arc<Client>>,
    away: Vec<usize>,
    has_sent: bool,
}

impl Naive {
    fn is_gone(&self) -> bool {
        self.here.is_empty() && self.away.is_empty()
    }
}

proptest! {
    #[test]
    fn routes_news_and_farewells_are_those_of_a_naive_table(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let table = Table::default();
        let relays = [8, 9].map(|number| Arc::new(Client::new(relay(number))));
        let listener = joined(&table, 200);
        let watcher = table.join(relay(201), || true).expect("admitted");
        table.watch(&watcher);
        let mut seen: BTreeSet<u8> = news(&watcher).iter().map(|(number, _)| *number).collect();
        let mut naive: BTreeMap<u8, Naive> = BTreeMap::new();
        for event in events {
            let (Event::Join(number)
            | Event::Leave(number)
            | Event::Appear(number, _)
            | Event::Vanish(number, _)
            | Event::Send(number)) = event;
            let it = naive.entry(number).or_default();
            let was_there = !it.is_gone();
            match event {
                Event::Join(_) => it.here.push(joined(&table, number)),
                Event::Leave(_) => {
                    if let Some(client) = it.here.pop() {
                        leave(&table, &client);
                    }
                }
                Event::Appear(_, relay) => {
                    if !it.away.contains(&relay) {
                        it.away.push(relay);
                    }
                    table.add_forwarder(key(number), &relays[relay]);
                }
                Event::Vanish(_, relay) => {
                    it.away.retain(|other| *other != relay);
                    table.remove_forwarder(&key(number), &relays[relay]);
                }
                Event::Send(_) => {
                    it.has_sent |= was_there;
                    table.note_sent(&key(number), key(200));
                }
            }
            let expected = it.here.last().or_else(|| it.away.first().map(|relay| &relays[*relay]));
            let found = table.find(&key(number));
            prop_assert_eq!(found.is_some(), expected.is_some());
            prop_assert!(expected.is_none_or(|client| is_by(&table, &key(number), client)));
            let farewell = was_there && it.is_gone() && std::mem::take(&mut it.has_sent);
            let told = news(&listener);
            prop_assert_eq!(told, if farewell { vec![(number, "gone")] } else { vec![] });
            for (number, what) in news(&watcher) {
                if what == "here" { seen.insert(number) } else { seen.remove(&number) };
            }
            prop_assert_eq!(seen.contains(&number), !it.here.is_empty());
        }
    }
}
