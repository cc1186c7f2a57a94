//! The task of a region: connect, serve the connection to its end, wait, again.

use std::sync::Arc;

use mesh_wire::DerpRegionId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

use crate::backoff::{Backoff, WAIT_MAX};
use crate::connect::Connector;
use crate::connection::{self, DisconnectCause, Link};
use crate::outbox::Outbox;
use crate::region_client::{Event, Options, Shared};

/// Keeps a connection to a region up.
pub(crate) struct Keeper {
    region: DerpRegionId,
    connector: Connector,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
}

impl Keeper {
    pub(crate) fn new(options: Options, shared: Arc<Shared>, events: mpsc::Sender<Event>) -> Self {
        let Options { region, private, roots, is_home: _ } = options;
        let id = region.region_id;
        Self { region: id, connector: Connector { region, private, roots }, shared, events }
    }

    /// Runs until nobody listens to the events.
    pub(crate) async fn run(self) {
        tokio::select! {
            biased;
            // First: whatever else is ready has nobody to be ready for.
            () = self.events.closed() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut backoff = Backoff::new();
        let mut down_since = Instant::now();
        loop {
            let cause = match self.connector.connect().await {
                Ok(link) => {
                    let up_since = Instant::now();
                    let cause = self.serve(link).await;
                    down_since = Instant::now();
                    // A relay that lets us in only to hang up is left alone for longer each time.
                    if up_since.elapsed() >= WAIT_MAX {
                        backoff = Backoff::new();
                    }
                    cause
                }
                Err(cause) => {
                    // WireGuard repeats a handshake after five seconds: what waits for longer was given up.
                    if down_since.elapsed() >= WAIT_MAX {
                        self.shared.update(Outbox::drop_packets);
                    }
                    cause
                }
            };
            self.tell(Event::Disconnected { region: self.region, cause }).await;
            sleep(backoff.next_wait(getrandom::u32().unwrap_or_default())).await;
        }
    }

    async fn serve(&self, link: Link<TlsStream<TcpStream>>) -> DisconnectCause {
        let now = Instant::now().into_std();
        self.shared.update(|outbox| outbox.handle_connected(link.rate, now));
        self.tell(Event::Connected { region: self.region }).await;
        let cause = connection::serve(link, &self.shared, &self.events, self.region).await;
        self.shared.update(Outbox::handle_disconnected);
        cause
    }

    async fn tell(&self, event: Event) {
        // If nobody listens, the task ends of that in `run`.
        let _ = self.events.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use mesh_keys::{NodePrivate, NodePublic};
    use mesh_wire::DerpRegion;
    use rustls::RootCertStore;

    use super::*;
    use crate::RegionClient;

    /// A client of a region without relays, where every attempt fails at once.
    fn spawn() -> (RegionClient, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(1);
        let options = Options {
            region: Arc::new(DerpRegion::default()),
            private: NodePrivate::from_bytes([1; 32]),
            roots: Arc::new(RootCertStore::empty()),
            is_home: false,
        };
        (RegionClient::spawn(options, sender), events)
    }

    async fn expect_failure(events: &mut mpsc::Receiver<Event>) {
        let event = events.recv().await;
        let cause = DisconnectCause::NoNode;
        let expected = Event::Disconnected { region: DerpRegionId(0), cause };
        assert_eq!(format!("{event:?}"), format!("{:?}", Some(expected)));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_told_ever_more_seldom() {
        let (_client, mut events) = spawn();
        let start = Instant::now();
        let mut attempts = 0;
        while start.elapsed() < Duration::from_mins(10) {
            expect_failure(&mut events).await;
            attempts += 1;
        }
        // About six on the way to one every five seconds, give or take the half.
        assert!((80..=250).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn packets_that_wait_too_long_for_a_connection_are_dropped() {
        let (client, mut events) = spawn();
        let start = Instant::now();
        client.send(NodePublic::from_bytes([2; 32]), Bytes::from_static(b"hello"));
        loop {
            expect_failure(&mut events).await;
            let [_, dropped] = client.status().dropped;
            assert_eq!(dropped.packets, u64::from(start.elapsed() >= WAIT_MAX));
            if dropped.packets > 0 {
                return;
            }
        }
    }
}
