//! Disco: datagrams between nodes, and what stands inside their boxes.

use std::sync::LazyLock;

use mesh_disco::{Channel, Message, NONCE_BYTES, TransactionId, is_disco, sender};
use mesh_keys::{DiscoPrivate, NodePublic};

/// A node's channel to another, and the other's to it.
static CHANNELS: LazyLock<[Channel; 2]> = LazyLock::new(|| {
    let [ours, theirs] = [7, 9].map(|byte| DiscoPrivate::from_bytes([byte; 32]));
    let channel = |own, peer: &DiscoPrivate| Channel::new(own, &peer.public());
    [channel(&ours, &theirs), channel(&theirs, &ours)].map(|made| made.expect("ordinary keys"))
});

/// Any bytes as a datagram, and as what stands inside one; then a sealed ping with any change to it.
pub(crate) fn disco(input: &[u8]) {
    let [ours, theirs] = &*CHANNELS;
    assert_eq!(is_disco(input), sender(input).is_some());
    assert!(is_disco(input) || ours.open(input).is_err(), "what opens looks like disco");

    if let Ok(message) = Message::parse(input) {
        assert_eq!(ours.open(&seal(theirs, &message)), Ok(message), "it arrives as it was sent");
    }

    let honest = seal(
        theirs,
        &Message::Ping {
            transaction: TransactionId([3; 12]),
            node_key: Some(NodePublic::from_bytes([5; 32])),
            padding_bytes: 0,
        },
    );
    let mut changed = honest.clone();
    changed.iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    let opened = ours.open(&changed).is_ok();
    assert_eq!(opened, changed == honest, "only the honest datagram opens");
}

fn seal(channel: &Channel, message: &Message) -> Vec<u8> {
    let mut datagram = Vec::new();
    channel.seal(message, [1; NONCE_BYTES], &mut datagram);
    datagram
}
