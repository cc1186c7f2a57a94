use std::future::poll_fn;
use std::time::SystemTime;

use mesh_keys::DerpPrivate;
use rustls::client::ClientConnectionData;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::certificate::{Certificate, generate_self_signed};
use crate::connection::ConnectionError;
use crate::refusal::Refusal;

/// What old middleboxes want to see within the handshake.
const CHANGE_CIPHER_SPEC: &[u8] = b"\x14\x03\x03\0\x01\x01";

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn configs() -> (ClientConfig, ServerConfig) {
    let now = SystemTime::now();
    let pem = generate_self_signed("127.0.0.1", now).unwrap();
    let key = DerpPrivate::from_bytes([0x52; 32]).public();
    let server = Certificate::from_pem(&pem).unwrap().server_config(&key, now).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (client, server)
}

/// A client that has still to say how its handshake ends.
struct Client {
    io: DuplexStream,
    finished: Vec<u8>,
    records: Records<ClientConnectionData>,
    relay: JoinHandle<io::Result<Tls<DuplexStream>>>,
}

impl Client {
    /// A client that says hello in two pieces, the first of so many bytes at most.
    async fn say_hello(protocols: Vec<Vec<u8>>, first_bytes: usize) -> Self {
        let (mut client, server) = configs();
        client.alpn_protocols = protocols;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut handshake = Handshake::client(Arc::new(client), name).unwrap();
        let (mut io, link) = duplex(1 << 20);
        let relay = tokio::spawn(Tls::accept(link, Arc::new(server)));
        let (mut came, mut out, mut early) = (Vec::new(), Vec::new(), Vec::new());
        while !handshake.advance(&mut came, &mut out, &mut early).unwrap() {
            for piece in out.chunks(first_bytes) {
                io.write_all(piece).await.unwrap();
                for _ in 0..10 {
                    yield_now().await;
                }
            }
            out.clear();
            io.read_buf(&mut came).await.unwrap();
        }
        Self { io, finished: out, records: handshake.finish().unwrap(), relay }
    }

    /// Ends the handshake and goes on with this. Gives the relay's end as well.
    async fn go_on(mut self, bytes: &[u8]) -> (Self, io::Result<Tls<DuplexStream>>) {
        let burst = [&self.finished, bytes].concat();
        self.io.write_all(&burst).await.unwrap();
        let accepted = (&mut self.relay).await.unwrap();
        (self, accepted)
    }
}

async fn ends() -> (Client, Tls<DuplexStream>) {
    let (client, accepted) = Client::say_hello(Vec::new(), 1 << 20).await.go_on(b"").await;
    (client, accepted.unwrap())
}

/// Receives once.
async fn receive(tls: &mut Tls<DuplexStream>) -> io::Result<(usize, Vec<u8>)> {
    let mut came = Vec::new();
    let mut take = |data: &[u8]| {
        came.extend_from_slice(data);
        Ok::<_, io::Error>(())
    };
    let read = poll_fn(|cx| tls.poll_receive(cx, &mut take)).await?;
    Ok((read, came))
}

/// A thousand records of no data.
fn empty_records(client: &mut Client) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..1000 {
        client.records.seal_with(&mut wire, |_| ()).unwrap();
    }
    wire
}

#[tokio::test]
async fn records_of_no_data_count_like_others() {
    let (mut client, mut tls) = ends().await;
    let mut wire = empty_records(&mut client);
    client.io.write_all(&wire).await.unwrap();
    assert_eq!(receive(&mut tls).await.unwrap(), (wire.len(), Vec::new()));
    wire.clear();
    client.records.seal(b"data", &mut wire).unwrap();
    client.records.seal_close(&mut wire);
    client.io.write_all(&wire).await.unwrap();
    assert_eq!(receive(&mut tls).await.unwrap(), (wire.len(), b"data".to_vec()));
    assert_eq!(receive(&mut tls).await.unwrap(), (0, Vec::new()));
}

#[tokio::test]
async fn who_reads_a_stream_of_no_data_lets_others_go_on() {
    let (mut client, mut tls) = ends().await;
    let mut wire = empty_records(&mut client);
    client.records.seal(b"data", &mut wire).unwrap();
    client.io.write_all(&wire[..wire.len() - 1]).await.unwrap();
    let mut room = [0; 10];
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        let mut into = ReadBuf::new(&mut room);
        assert!(Pin::new(&mut tls).poll_read(cx, &mut into).is_pending());
        // It wakes itself after the first.
        if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    client.io.write_all(&wire[wire.len() - 1..]).await.unwrap();
    drop(client);
    let mut came = Vec::new();
    tls.read_to_end(&mut came).await.unwrap();
    assert_eq!(came, b"data");
}

#[tokio::test]
async fn records_against_the_protocol_are_counted_and_an_alert_is_not() {
    let forged = b"\x17\x03\x03\0\x20................................";
    for wire in [CHANGE_CIPHER_SPEC, forged] {
        let (mut client, mut tls) = ends().await;
        client.io.write_all(wire).await.unwrap();
        let error = ConnectionError::from(receive(&mut tls).await.unwrap_err());
        assert_eq!(error.refusal(), Some(Refusal::Tls), "{error}");
    }
    let gone = ConnectionError::from(no_record(RecordError::Alert(40)));
    assert_eq!(gone.refusal(), None);
}

/// A hello so long that the buffer grows, and then a record longer than there are, which is not yet there: both as
/// long as the handshake itself bears.
#[tokio::test]
async fn a_record_without_end_behind_the_handshake_is_refused() {
    let mut protocols = vec![vec![b'a'; 250]; 60];
    protocols.push(b"http/1.1".to_vec());
    let client = Client::say_hello(protocols, 13_000).await;
    let mut burst = b"\x17\x03\x03\x47\0".to_vec();
    burst.resize(17_500, 0);
    let (_, accepted) = client.go_on(&burst).await;
    let refused = accepted.map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::InvalidData));
}

#[tokio::test]
async fn a_goodbye_takes_no_buffer_from_others() {
    let (_client, mut tls) = ends().await;
    WRITE.set(Vec::with_capacity(WRITE_BYTES));
    tls.shutdown().await.unwrap();
    assert!(WRITE.take().capacity() >= WRITE_BYTES);
}
