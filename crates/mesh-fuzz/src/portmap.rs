//! Port mapping: a gateway that answers what it likes.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use mesh_portmap::{LIFETIME, Mapper, PAUSE_MAX};

/// Most that a mapper does before it waits: it gives up a mapping and a service, and asks for another.
const STEPS_MAX: usize = 4;

/// Datagrams of a gateway, each behind its length and the seconds that pass before it: two bytes and one.
pub(crate) fn portmap(input: &[u8]) {
    let mut now = Instant::now();
    let mut mapper = Mapper::new(Ipv4Addr::new(192, 168, 1, 20), 41_641, [7; 12], now);
    let mut rest = input;
    while let Some((&[wait_high, wait_low, length], behind)) = rest.split_first_chunk() {
        let (datagram, behind) = behind.split_at(behind.len().min(length.into()));
        rest = behind;
        now += Duration::from_secs(u16::from_be_bytes([wait_high, wait_low]).into());
        for _ in 0..STEPS_MAX {
            mapper.handle_timeout(now);
        }
        while let Some(request) = mapper.poll_request() {
            assert!([2, 12, 24, 60].contains(&request.len()), "a request of either protocol");
        }
        mapper.handle_answer(datagram, now);
        assert!(mapper.poll_timeout() > now, "it waits");
        assert!(mapper.poll_timeout() <= now + PAUSE_MAX.max(LIFETIME), "and not for ever");
        assert_eq!(mapper.external().is_some(), mapper.give_back().is_some());
        if let Some(external) = mapper.external() {
            assert!(external.port() != 0 && !external.ip().is_unspecified());
            assert!(!external.ip().is_loopback() && !external.ip().is_multicast());
        }
    }
}
