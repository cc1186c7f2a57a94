//! Tunnels: datagrams of strangers, and those of a peer with any change to them.

use mesh_keys::NodePrivate;
use mesh_wireguard::{Output, Tunnels};

/// A packet of a peer, as long as such packets are padded to.
const PACKET: [u8; 32] = [0x45; 32];

/// What a handshake ends with (`mac2`): nobody looks at it as long as there are few handshakes.
const COOKIE_BYTES: usize = 16;

/// Any bytes as a datagram; then a handshake and data with any change to them, which only the honest ones survive.
pub(crate) fn wireguard(input: &[u8]) {
    let [ours, theirs] = [7, 9].map(|byte| NodePrivate::from_bytes([byte; 32]));
    let (mut here, mut there) = (Tunnels::new(&ours), Tunnels::new(&theirs));
    assert!(take(&mut here, input).is_none(), "a stranger is believed");

    let initiation = sent(|emit| there.encapsulate(&ours.public(), &PACKET, emit));
    assert!(is_refused(&mut here, &initiation, COOKIE_BYTES, input));
    let response = take(&mut here, &initiation).expect("an honest handshake");
    assert!(is_refused(&mut there, &response, COOKIE_BYTES, input));
    let data = take(&mut there, &response).expect("an honest answer");
    assert!(is_refused(&mut here, &data, 0, input));
    assert!(take(&mut here, &data).is_some(), "honest data");
    assert!(take(&mut here, &data).is_none(), "data is taken twice");
}

/// What a tunnel sends: the first datagram.
fn sent(act: impl FnOnce(&mut dyn FnMut(Output<'_>))) -> Vec<u8> {
    let mut datagram = Vec::new();
    act(&mut |output| {
        if let Output::Datagram { bytes, .. } = output
            && datagram.is_empty()
        {
            datagram = bytes.to_vec();
        }
    });
    datagram
}

/// Gives tunnels a datagram, and returns what is sent in answer if it was a peer's.
fn take(tunnels: &mut Tunnels, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut is_accepted = false;
    let answer =
        sent(|emit| is_accepted = tunnels.decapsulate(None, datagram, |_| true, emit).is_ok());
    is_accepted.then_some(answer)
}

/// Whether a datagram is refused with any change to it but to its last bytes.
fn is_refused(tunnels: &mut Tunnels, datagram: &[u8], last_bytes: usize, input: &[u8]) -> bool {
    let mut changed = datagram.to_vec();
    let proven = changed.len().saturating_sub(last_bytes);
    changed[..proven].iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    changed == datagram || take(tunnels, &changed).is_none()
}
