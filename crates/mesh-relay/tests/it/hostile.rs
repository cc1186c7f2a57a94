//! Whoever wants no good: what it does is counted and costs it its connection, and two others go on talking.

mod frames;
mod heads;
mod logins;
mod places;

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::{ClientInfo, ClientLogin};
use mesh_relay::{Refusal, Relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

use crate::client::{Client, Event, join, node, relay};

/// How long a relay may take to get rid of somebody, unless it waits on purpose.
const PATIENCE: Duration = Duration::from_secs(5);

/// A relay with two who talk through it, whatever happens beside them.
struct Scene {
    relay: Relay,
    alice: Client<DuplexStream>,
    bob: Client<DuplexStream>,
    said: u32,
}

impl Scene {
    async fn new() -> Self {
        let relay = relay();
        let (alice, bob) = (join(&relay, 1).await, join(&relay, 2).await);
        Self { relay, alice, bob, said: 0 }
    }

    /// Both get every word that the other says, and nothing else.
    async fn talk(&mut self) {
        self.said += 1;
        let word = self.said.to_be_bytes();
        self.alice.send(self.bob.key, &word).await;
        self.bob.expect(Event::Packet(self.alice.key, word.to_vec())).await;
        self.bob.send(self.alice.key, &word).await;
        self.alice.expect(Event::Packet(self.bob.key, word.to_vec())).await;
    }

    fn refused(&self, reason: Refusal) -> u64 {
        self.relay.stats().refused(reason).load(Ordering::Relaxed)
    }

    /// Waits until so many were refused for this reason, and nobody for another one; the two still talk.
    async fn expect_refused(&mut self, reason: Refusal, connections: u64) {
        let counted = async {
            while self.refused(reason) < connections {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(PATIENCE, counted).await.is_ok(), "{}", self.refused(reason));
        for other in Refusal::ALL {
            let expected = if other == reason { connections } else { 0 };
            assert_eq!(self.refused(other), expected, "{}", other.label());
        }
        assert_eq!(self.relay.stats().clients.load(Ordering::Relaxed), 2);
        self.talk().await;
    }
}

/// A stream to the relay's own door, with HTTP.
fn knock(relay: &Relay, bytes: usize) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(bytes);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_connection(theirs, None).await });
    ours
}

/// Writes what the relay takes of it, waits until it hangs up, and gives what it said.
async fn write_until_hung_up_on(mut io: DuplexStream, bytes: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(&mut io);
    let mut said = Vec::new();
    let both = async {
        let write = async {
            // It may hang up before it has read everything.
            let _ = to.write_all(bytes).await;
        };
        let read = async {
            let _ = from.read_to_end(&mut said).await;
        };
        tokio::join!(write, read)
    };
    assert!(timeout(PATIENCE, both).await.is_ok(), "the relay does not hang up");
    said
}

/// The login of a node, as it should be.
fn login(relay: &Relay, number: u8) -> Vec<u8> {
    let login = ClientLogin::new(&node(number), &relay.public_key()).expect("login");
    let mut bytes = Vec::new();
    login.encode_client_info([1; 24], &ClientInfo::default(), &mut bytes);
    bytes
}
