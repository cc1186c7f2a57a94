//! Two stacks back to back, on paused time.

mod beside;
mod close;
mod foreign;
mod hostile;
mod listen;
mod model;
mod ping;
mod transfer;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Config, Network, Outgoing, PacketBatch, Stack, TcpListener, TcpStream};

/// The addresses of the first stack.
const A4: &str = "100.64.0.1";
const A6: &str = "fd7a:115c:a1e0::1";
/// The addresses of the second stack.
const B4: &str = "100.64.0.2";
const B6: &str = "fd7a:115c:a1e0::2";

/// What happens to packets on their way.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    latency: Duration,
    /// One packet in so many is lost; none with 0.
    lost_one_in: usize,
    /// One packet in so many comes a latency later than its time; none with 0.
    late_one_in: usize,
}

/// Small reproducible randomness.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn hits_one_in(&mut self, sides: usize) -> bool {
        sides != 0 && self.roll(sides) == 0
    }
}

fn stack(addresses: &[&str]) -> (Stack, Outgoing) {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Stack::new(&Config { addresses, ..Config::default() }).expect("a stack")
}

/// Two stacks, each of whose packets reach the other one.
fn pair_in(weather: Weather) -> (Stack, Stack) {
    let (a, a_outgoing) = stack(&[A4, A6]);
    let (b, b_outgoing) = stack(&[B4, B6]);
    tokio::spawn(carry(a_outgoing, b.clone(), weather, Dice(1)));
    tokio::spawn(carry(b_outgoing, a.clone(), weather, Dice(2)));
    (a, b)
}

fn pair() -> (Stack, Stack) {
    pair_in(Weather::default())
}

async fn carry(mut from: Outgoing, to: Stack, weather: Weather, mut dice: Dice) {
    let mut batch = PacketBatch::new();
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    loop {
        let next = under_way.front().map(|(at, _)| *at);
        tokio::select! {
            () = from.next_batch(&mut batch) => {
                for packet in batch.packets() {
                    if dice.hits_one_in(weather.lost_one_in) {
                        continue;
                    }
                    let is_late = dice.hits_one_in(weather.late_one_in);
                    let at = Instant::now() + weather.latency * (1 + u32::from(is_late));
                    let position = under_way.partition_point(|(other, _)| *other <= at);
                    under_way.insert(position, (at, packet.to_vec()));
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        let now = Instant::now();
        let count = under_way.partition_point(|(at, _)| *at <= now);
        to.receive(under_way.drain(..count).map(|(_, packet)| packet));
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn listen(stack: &Stack, port: u16) -> TcpListener {
    stack.listen_tcp(Network::Tcp, None, port).expect("a free port")
}

/// A connection from `a` to `b`, both ends.
async fn connect(a: &Stack, b: &Stack, ip: &str) -> (TcpStream, TcpStream) {
    let mut listener = listen(b, 7);
    let (client, server) = tokio::join!(a.connect_tcp(None, at(ip, 7)), listener.accept());
    (client.expect("a connection"), server.expect("a connection").0)
}

/// Bytes that tell where they belong.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ seed).collect()
}

/// Waits at most `seconds` of test time.
async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(seconds), future).await.expect("in time")
}

async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.map(|_| all)
}

/// Waits until both stacks have forgotten all connections.
async fn all_gone(stacks: [&Stack; 2]) {
    while stacks.iter().any(|stack| stack.connection_count() > 0) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn assert_echo(client: &mut TcpStream, server: &mut TcpStream) {
    let mut bytes = [0; 4];
    client.write_all(b"ping").await.expect("written");
    server.read_exact(&mut bytes).await.expect("read");
    assert_eq!(&bytes, b"ping");
    server.write_all(b"pong").await.expect("written");
    client.read_exact(&mut bytes).await.expect("read");
    assert_eq!(&bytes, b"pong");
}
