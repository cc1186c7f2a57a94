//! Tunnels: datagrams of strangers, and those of a peer with any change to them.

use mesh_keys::NodePrivate;
use mesh_wireguard::{Output, Tunnels};

/// A packet of a peer, as long as such packets are padded to.
const PACKET: [u8; 32] = [0x45; 32];

/// Any bytes as a datagram; then a handshake and data with any change to them, which only the honest ones survive.
pub(crate) fn wireguard(input: &[u8]) {
    let [ours, theirs] = [7, 9].map(|byte| NodePrivate::from_bytes([byte; 32]));
    let (mut here, mut there) = (Tunnels::new(&ours), Tunnels::new(&theirs));
    assert!(take(&mut here, input).is_none(), "a stranger is believed");

    let initiation = sent(|emit| there.encapsulate(&ours.public(), &PACKET, emit));
    assert!(changed(&initiation, input).is_none_or(|changed| take(&mut here, &changed).is_none()));
    let response = take(&mut here, &initiation).expect("an honest handshake");
    assert!(changed(&response, input).is_none_or(|changed| take(&mut there, &changed).is_none()));
    let data = take(&mut there, &response).expect("an honest answer");
    assert!(changed(&data, input).is_none_or(|changed| take(&mut here, &changed).is_none()));
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

fn changed(datagram: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let mut changed = datagram.to_vec();
    changed.iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    (changed != datagram).then_some(changed)
}
