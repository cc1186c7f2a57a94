//! Relays that mean no good: they hold a certificate that we trust, or not even that.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_derp::{ClientFrame, FrameReader, PacketKind, ServerFrame, ServerLogin};
use mesh_derp_client::{QUEUE_BYTES_MAX, QUEUE_PACKETS_MAX};
use mesh_keys::{DerpPrivate, NodePublic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::relays::{Client, Identity, pinned_node, tell};

/// A server that does whatever a test has it do.
struct Door {
    listener: TcpListener,
    identity: Identity,
    login: ServerLogin,
}

impl Door {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let login = ServerLogin::new(DerpPrivate::from_bytes([0x52; 32]), None);
        Self { listener, identity: Identity::new("relay.example"), login }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    fn client(&self) -> Client {
        Client::spawn(1, vec![pinned_node(self.addr(), &self.identity)])
    }

    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.expect("a client").0
    }

    async fn accept_tls(&self) -> TlsStream<TcpStream> {
        let tls = self.identity.server_config(&self.login.public_key());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        acceptor.accept(self.accept().await).await.expect("TLS")
    }

    /// Logs the client in, and then does nothing.
    async fn accept_login(&self) -> TlsStream<TcpStream> {
        let mut io = self.accept_tls().await;
        let mut out = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        self.login.encode_greeting(&mut out);
        io.write_all(&out).await.expect("the client reads");
        let mut head = [0; 1];
        let mut end = 0;
        while end < 4 {
            io.read_exact(&mut head).await.expect("a request");
            end = if head[0] == b"\r\n\r\n"[end] { end + 1 } else { 0 };
        }
        let mut input = Vec::new();
        let login = loop {
            io.read_buf(&mut input).await.expect("a login");
            if let Some(login) = self.login.handle_input(&mut &input[..]).expect("a login") {
                break login;
            }
        };
        let mut out = Vec::new();
        login.encode_server_info(None, [9; 24], &mut out);
        io.write_all(&out).await.expect("the client reads");
        io.flush().await.expect("the client reads");
        io
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_and_asked_again() {
    let door = Door::open().await;
    let mut client = door.client();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", b"\x16\x03\x03\xff\xff"] {
        let mut socket = door.accept().await;
        socket.write_all(answer).await.expect("the client reads");
        socket.shutdown().await.expect("a connection");
        let told = tell(&client.expect_disconnected().await);
        assert!(told.contains(": no trusted TLS connection: "), "{told}");
    }
}

#[tokio::test]
async fn a_relay_that_turns_to_nonsense_is_left_and_asked_again() {
    let door = Door::open().await;
    let mut client = door.client();
    for nonsense in
        [&b"\x05\xff\xff\xff\xff"[..], b"GET / HTTP/1.1\r\n\r\n", &b"\xff".repeat(100_000)]
    {
        let mut io = door.accept_login().await;
        client.expect_connected().await;
        // The client may hang up before it has read all of it.
        let _ = io.write_all(nonsense).await;
        let _ = io.flush().await;
        let told = tell(&client.expect_disconnected().await);
        assert!(told.starts_with("relay does not keep to the protocol: frame of type "), "{told}");
    }
}

#[tokio::test]
async fn a_relay_that_only_lets_in_is_asked_ever_more_seldom() {
    let door = Door::open().await;
    let mut client = door.client();
    let start = tokio::time::Instant::now();
    for _ in 0..4 {
        drop(door.accept_login().await);
        client.expect_connected().await;
        client.expect_disconnected().await;
    }
    // Half of the mean waits of 100, 200 and 400 ms at least.
    assert!(start.elapsed().as_millis() >= 350, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_stalled_relay_costs_the_oldest_packets_and_no_more_memory() {
    let door = Door::open().await;
    let mut client = door.client();
    let mut io = door.accept_login().await;
    client.expect_connected().await;
    let dst = NodePublic::from_bytes([9; 32]);
    let disco = [b"TS\xf0\x9f\x92\xac".as_slice(), &[0; 80]].concat();
    let (mut sent, filling) = (0_u64, vec![7; 60_000]);
    // The sockets between us take some megabytes first.
    while client.handle.status().dropped[PacketKind::Data as usize].packets < 1000 {
        for _ in 0..50 {
            client.send(dst, &[&sent.to_be_bytes()[..], &filling].concat());
            sent += 1;
        }
        tokio::task::yield_now().await;
        assert!(sent < 10_000, "all of it is taken in");
    }
    client.send(dst, &disco);
    let last = sent.to_be_bytes();
    client.send(dst, &last);
    let status = client.handle.status();
    let [_, tally] = status.dropped;
    let waiting = sent + 1 - status.sent[PacketKind::Data as usize].packets - tally.packets;
    assert!(waiting <= QUEUE_PACKETS_MAX as u64 && waiting * 60_000 <= 2 * QUEUE_BYTES_MAX as u64);
    assert_eq!(status.dropped[PacketKind::Disco as usize].packets, 0);

    let (mut input, mut frames, mut got_disco, mut before) =
        (Vec::new(), FrameReader::new(), false, None);
    loop {
        io.read_buf(&mut input).await.expect("the client writes");
        let mut rest = &input[..];
        let mut is_last = false;
        while let Some(frame) = frames.next_from_client(&mut rest).expect("frames") {
            let ClientFrame::SendPacket { payload, .. } = frame else { panic!("{frame:?}") };
            if payload == disco {
                got_disco = true;
            } else {
                let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                assert!(number > before, "{number:?} after {before:?}");
                before = number;
                is_last = payload == last;
            }
        }
        input = rest.to_vec();
        if is_last {
            break;
        }
    }
    assert!(got_disco);
}

#[tokio::test]
async fn floods_both_ways_pass_each_other() {
    let door = Door::open().await;
    let mut client = door.client();
    let io = door.accept_login().await;
    client.expect_connected().await;
    let (mut reader, mut writer) = tokio::io::split(io);
    let src = NodePublic::from_bytes([9; 32]);
    let flood = tokio::spawn(async move {
        let mut bytes = Vec::new();
        for _ in 0..40 {
            ServerFrame::RecvPacket { src, payload: &[1; 1400] }.encode(&mut bytes);
        }
        while writer.write_all(&bytes).await.is_ok() {}
    });
    let taken = tokio::spawn(async move {
        let mut taken = 0;
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = reader.read(&mut bytes).await {
            taken += read;
        }
        taken
    });
    for _ in 0..20_000 {
        client.expect_packet(src, &[1; 1400]).await;
        client.send(src, &[2; 1400]);
    }
    let sent = client.handle.status().sent[PacketKind::Data as usize].packets;
    assert!(sent > 2000, "{sent} packets left while 20,000 came");
    drop(client);
    flood.await.expect("no panic");
    assert!(taken.await.expect("no panic") > 2_000_000);
}
