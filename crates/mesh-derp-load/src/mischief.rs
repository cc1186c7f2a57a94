//! What hostile clients do instead of what they should.

/// Frame types as they stand in a header.
const CLIENT_INFO: u8 = 0x02;
const SEND_PACKET: u8 = 0x04;
const FORWARD_PACKET: u8 = 0x0a;
const PING: u8 = 0x12;

/// Bytes of a key, and of the nonce and the proof of a sealed login.
const KEY_BYTES: usize = 32;
const SEAL_BYTES: usize = 24 + 16;

/// Bytes of a head of a request that never ends: less than any relay takes.
const HEAD_BYTES: usize = 4 << 10;

/// Pings that are sent in one go.
const PINGS: usize = 1200;

/// What a client says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The beginning of TLS.
    Hello,
    /// The request of the upgrade.
    Request,
    /// The login.
    Login,
    /// The first frames after it.
    Frames,
}

/// A way to break the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Connects and says nothing.
    Silent,
    /// Sends what is no TLS.
    NoTls,
    /// Asks for nothing.
    NoRequest,
    /// Begins a request and does not end it.
    HalfRequest,
    /// Does not log in.
    NoLogin,
    /// Logs in with a sealed part that does not open.
    BadBox,
    /// Logs in with the all-zero key.
    ZeroKey,
    /// Announces a login of four gigabytes.
    LongLogin,
    /// Announces a packet of four gigabytes.
    LongPacket,
    /// Speaks as a relay of the mesh.
    MeshFrame,
    /// Pings more often than anybody needs.
    Pings,
}

impl Mischief {
    /// All ways.
    pub(crate) const ALL: [Self; 11] = [
        Self::Silent,
        Self::NoTls,
        Self::NoRequest,
        Self::HalfRequest,
        Self::NoLogin,
        Self::BadBox,
        Self::ZeroKey,
        Self::LongLogin,
        Self::LongPacket,
        Self::MeshFrame,
        Self::Pings,
    ];

    /// What is said in place of a step; `None` if it is taken as it should.
    pub(crate) fn instead_of(self, step: Step) -> Option<Vec<u8>> {
        match (self, step) {
            (Self::Silent, Step::Hello)
            | (Self::NoRequest, Step::Request)
            | (Self::NoLogin, Step::Login) => Some(Vec::new()),
            (Self::NoTls, Step::Hello) => Some(vec![0x55; 512]),
            (Self::HalfRequest, Step::Request) => {
                Some([b"GET /derp HTTP/1.1\r\nX: ".as_slice(), &[b'x'; HEAD_BYTES]].concat())
            }
            (Self::BadBox, Step::Login) => {
                Some(frame(CLIENT_INFO, &[9; KEY_BYTES + SEAL_BYTES + 64]))
            }
            (Self::ZeroKey, Step::Login) => {
                Some(frame(CLIENT_INFO, &[0; KEY_BYTES + SEAL_BYTES + 64]))
            }
            (Self::LongLogin, Step::Login) => Some(vec![CLIENT_INFO, 0xff, 0xff, 0xff, 0xff]),
            (Self::LongPacket, Step::Frames) => Some(vec![SEND_PACKET, 0xff, 0xff, 0xff, 0xff]),
            (Self::MeshFrame, Step::Frames) => {
                Some(frame(FORWARD_PACKET, &[7; 2 * KEY_BYTES + 64]))
            }
            (Self::Pings, Step::Frames) => Some(frame(PING, &[1; 8]).repeat(PINGS)),
            _ => None,
        }
    }
}

fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("invariant: frames of ours are small");
    [&[frame_type], length.to_be_bytes().as_slice(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mischief_is_done_at_one_step_and_fits_into_a_record() {
        const STEPS: [Step; 4] = [Step::Hello, Step::Request, Step::Login, Step::Frames];
        for mischief in Mischief::ALL {
            let done: Vec<_> = STEPS.iter().filter_map(|step| mischief.instead_of(*step)).collect();
            assert_eq!(done.len(), 1, "{mischief:?}");
            assert!(done[0].len() <= 16 << 10, "{mischief:?}");
        }
    }
}
