//! STUN over real sockets.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;

use crate::client::relay;

/// A binding request as stock clients write it.
const REQUEST: &[u8] = b"\x00\x01\x00\x14\x21\x12\xa4\x42\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
\x0b\x0c\x80\x22\x00\x08tailnode\x80\x28\x00\x04\xb3\x2c\x37\x0f";

async fn check(listen: &str, from: &str, to: &str, response_bytes: usize) -> anyhow::Result<()> {
    let relay = relay();
    let service = relay.spawn_stun_listener(listen.parse()?).await?;
    let to = SocketAddr::new(to.parse()?, service.local_addr().port());
    let socket = UdpSocket::bind(from).await?;
    for datagram in [b"no STUN at all", &REQUEST[..39], REQUEST] {
        socket.send_to(datagram, to).await?;
    }
    let mut response = [0; 100];
    let (bytes, answered_from) = socket.recv_from(&mut response).await?;
    assert_eq!(answered_from, to);
    assert_eq!(bytes, response_bytes);
    assert_eq!(response[8..20], REQUEST[8..20], "the same transaction");
    let port = u16::from_be_bytes([response[26] ^ 0x21, response[27] ^ 0x12]);
    assert_eq!(port, socket.local_addr()?.port());
    let stats = relay.stats();
    assert_eq!(stats.stun_answered.load(Ordering::Relaxed), 1);
    assert_eq!(stats.stun_ignored.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test]
async fn requests_are_answered_over_ipv4() {
    check("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", 32).await.expect("an answer");
}

#[tokio::test]
async fn requests_are_answered_over_ipv6() {
    check("[::1]:0", "[::1]:0", "::1", 44).await.expect("an answer");
}

#[tokio::test]
async fn ipv4_at_a_socket_for_both_is_told_as_ipv4() {
    check("[::]:0", "127.0.0.1:0", "127.0.0.1", 32).await.expect("an answer");
}

/// All of 127/8 is this machine, which answers from 127.0.0.1 if it is not told otherwise.
#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    check("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2", 32).await.expect("an answer");
    check("[::]:0", "127.0.0.1:0", "127.0.0.2", 32).await.expect("an answer");
}
