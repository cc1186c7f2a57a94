use std::future::poll_fn;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::wide::Wide;

/// Room on the way to a client: for many pongs.
const WAY_BYTES: usize = 1000;

#[tokio::test]
async fn who_pings_and_never_reads_is_owed_one_pong() {
    let (mut client, link) = duplex(WAY_BYTES);
    let (mut socket, _) = WebSocket::new(Wide::new(link), &[], Vec::new());
    for number in 0..1000_u32 {
        let ping = [&b"\x89\x84\0\0\0\0"[..], &number.to_be_bytes()].concat();
        client.write_all(&ping).await.unwrap();
        let receive = |cx: &mut Context<'_>| socket.poll_receive(cx, |_| Ok::<_, io::Error>(()));
        assert_eq!(poll_fn(receive).await.unwrap(), ping.len());
        assert!(socket.outbound.frames.len() <= 6, "{}", socket.outbound.frames.len());
    }
    let mut came = vec![0; WAY_BYTES];
    client.read_exact(&mut came).await.unwrap();
    socket.flush().await.unwrap();
    socket.shutdown().await.unwrap();
    drop(socket);
    client.read_to_end(&mut came).await.unwrap();
    assert!(came.len() < WAY_BYTES + 20, "{}", came.len());
    assert!(came.ends_with(b"\x8a\x04\0\0\x03\xe7\x88\x02\x03\xe8"), "{came:02x?}");
}

#[tokio::test]
async fn a_message_goes_in_one_write() {
    let (mut client, link) = duplex(MESSAGE_BYTES_MAX + 4);
    let (mut socket, _) = WebSocket::new(Wide::new(link), &[], Vec::new());
    let sent = vec![7; MESSAGE_BYTES_MAX + 1];
    assert_eq!(socket.write(&sent).await.unwrap(), MESSAGE_BYTES_MAX);
    assert!(socket.outbound.frames.is_empty());
    let mut came = Vec::new();
    client.read_buf(&mut came).await.unwrap();
    assert_eq!(came[..4], [0x82, 126, 0x3f, 0xfc]);
}
