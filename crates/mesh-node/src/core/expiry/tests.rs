use std::collections::BTreeMap;

use mesh_keys::{DiscoPrivate, NodePrivate};
use mesh_testkit::network::Dice;
use mesh_wire::{NodeId, PeerChange};
use mesh_wireguard::Tunnels;

use super::*;
use crate::control::Update;
use crate::core::{Random, Routing};

/// A time at which keys may expire.
const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A node, and what it goes by.
struct Lab {
    core: Core<Tunnels>,
    now: Instant,
    /// The machine's clock.
    wall_clock: Timestamp,
}

impl Lab {
    fn new(wall_clock: Timestamp) -> Self {
        let private = NodePrivate::from_bytes([1; 32]);
        let disco = DiscoPrivate::from_bytes([2; 32]);
        let (random, now) = (Random::new(|_| true), Instant::now());
        let core = Core::new(&private, disco, Routing::default(), random, now);
        let mut lab = Self { core, now, wall_clock };
        lab.core.handle_update(Update::Began, wall_clock, now);
        lab
    }

    fn tell(&mut self, message: MapResponse) {
        let update = Update::Message(Box::new(message));
        self.core.handle_update(update, self.wall_clock, self.now);
        self.wait(0);
    }

    fn tell_peer(&mut self, node: Node) {
        self.tell(MapResponse { peers_changed: vec![node], ..MapResponse::default() });
    }

    /// Lets time pass, and has the node do what is due.
    fn wait(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        while let Some(due_at) = Some(self.core.next_timeout()).filter(|at| *at <= end) {
            self.core.handle_timeout(due_at.max(self.now));
        }
        self.now = end;
        self.wall_clock += Duration::from_secs(secs);
    }

    /// Which peers have expired.
    fn expired(&self) -> BTreeMap<NodeId, bool> {
        let status = self.core.status(self.now);
        status.peers.into_iter().map(|peer| (peer.node.id, peer.node.expired)).collect()
    }
}

/// A peer whose key expires so many seconds after noon.
fn peer(id: u8, expires_after: Option<i64>) -> Node {
    let address = ipnet::IpNet::from(std::net::IpAddr::from([100, 64, 0, id]));
    Node {
        id: NodeId(id.into()),
        name: format!("{id}.test."),
        key: NodePrivate::from_bytes([100 + id; 32]).public(),
        key_expiry: expires_after.map(after_noon),
        addresses: vec![address],
        ..Node::default()
    }
}

fn after_noon(secs: i64) -> Timestamp {
    NOON + SignedDuration::from_secs(secs)
}

fn told_at(control_time: Timestamp) -> MapResponse {
    MapResponse { control_time: Some(control_time), ..MapResponse::keep_alive() }
}

#[test]
fn a_key_that_expires_without_a_word_is_refused_from_that_second_on() {
    let mut lab = Lab::new(NOON);
    lab.tell_peer(peer(1, Some(100)));
    lab.tell_peer(peer(2, None));
    let addresses = [[100, 64, 0, 1], [100, 64, 0, 2]];
    let routed = |lab: &Lab| addresses.map(|address| lab.core.has_route(address.into()));
    lab.wait(99);
    assert_eq!(routed(&lab), [true, true]);
    lab.wait(1);
    assert_eq!(routed(&lab), [false, true]);
    assert_eq!(lab.expired(), [(NodeId(1), true), (NodeId(2), false)].into());
}

#[test]
fn a_wrong_clock_goes_by_the_control_servers() {
    for (wall_clock, secs) in
        [(after_noon(3600), 100), (after_noon(-3600), 100), (after_noon(50), 50)]
    {
        let mut lab = Lab::new(wall_clock);
        lab.tell(told_at(NOON));
        lab.tell_peer(peer(1, Some(100)));
        lab.wait(secs - 1);
        assert!(!lab.expired()[&NodeId(1)], "{wall_clock}");
        lab.wait(1);
        assert!(lab.expired()[&NodeId(1)], "{wall_clock}");
    }
}

#[test]
fn a_clock_that_is_corrected_gives_keys_back() {
    let mut lab = Lab::new(after_noon(3600));
    lab.tell_peer(peer(1, Some(100)));
    assert!(lab.expired()[&NodeId(1)]);
    lab.tell(told_at(NOON));
    lab.wait(1);
    assert!(!lab.expired()[&NodeId(1)]);
}

#[test]
fn nothing_expires_by_a_time_that_cannot_be() {
    let mut lab = Lab::new(Timestamp::UNIX_EPOCH);
    lab.tell_peer(peer(1, Some(-2_000_000_000 + 86_400 * 365 * 7)));
    assert!(!lab.expired()[&NodeId(1)]);
}

#[test]
fn a_key_that_is_extended_is_good_again_unless_the_server_has_called_it_expired() {
    let mut lab = Lab::new(NOON);
    lab.tell_peer(peer(1, Some(-1)));
    lab.tell_peer(Node { expired: true, ..peer(2, Some(-1)) });
    assert_eq!(lab.expired(), [(NodeId(1), true), (NodeId(2), true)].into());
    let extended = [1, 2].map(|id| PeerChange {
        node_id: NodeId(id),
        key_expiry: Some(after_noon(5)),
        ..PeerChange::default()
    });
    lab.tell(MapResponse { peers_changed_patch: extended.into(), ..MapResponse::default() });
    assert_eq!(lab.expired(), [(NodeId(1), false), (NodeId(2), true)].into());
    lab.wait(5);
    assert!(lab.expired()[&NodeId(1)], "and only so long");
}

#[test]
fn peers_that_come_in_parts_before_the_time_is_known_are_judged_as_well() {
    let mut lab = Lab::new(NOON);
    lab.core.handle_update(Update::Peers(vec![peer(1, Some(-1))]), NOON, lab.now);
    lab.tell(MapResponse::default());
    assert!(lab.expired()[&NodeId(1)]);
}

/// Whatever happens, those have expired whose keys are, by the server's clock, or of whom the server says so.
#[test]
fn those_are_expired_whose_keys_are() {
    mesh_testkit::seeds::check(64, &[], |seed| {
        let mut dice = Dice::new(seed);
        let mut lab = Lab::new(NOON);
        let mut told = BTreeMap::<NodeId, Node>::new();
        let mut ahead = SignedDuration::ZERO;
        for _ in 0..60 {
            let id = u8::try_from(dice.below(6) + 1).expect("a small id");
            let expires_at = (lab.wall_clock + ahead).duration_since(NOON).as_secs();
            let expires_after = i64::try_from(dice.below(400)).expect("a short time") - 100;
            match dice.below(6) {
                0 | 1 => {
                    let expires_after = dice.chance(80).then_some(expires_at + expires_after);
                    let node = Node { expired: dice.chance(10), ..peer(id, expires_after) };
                    told.insert(node.id, node.clone());
                    lab.tell_peer(node);
                }
                2 => {
                    told.remove(&NodeId(id.into()));
                    let peers_removed = vec![NodeId(id.into())];
                    lab.tell(MapResponse { peers_removed, ..MapResponse::default() });
                }
                3 => {
                    // By more than a minute, so that it counts.
                    let hours = i64::try_from(dice.below(5)).expect("some hours") - 2;
                    ahead = SignedDuration::from_hours(hours);
                    lab.tell(told_at(lab.wall_clock + ahead));
                }
                _ => lab.wait(dice.below(200)),
            }
            // Reviews are a second apart.
            lab.wait(1);
            let time = lab.wall_clock + ahead;
            let is_past =
                |node: &Node| node.expired || node.key_expiry.is_some_and(|at| at <= time);
            let expected = told.iter().map(|(id, node)| (*id, is_past(node)));
            assert_eq!(lab.expired(), expected.collect(), "at {time}");
        }
    });
}
