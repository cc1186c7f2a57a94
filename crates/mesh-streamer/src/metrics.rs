//! What is measured of map streams.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::encode::Message;

/// Counters by one label.
type ByLabel<M> = Family<[(&'static str, &'static str); 1], M>;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole netmap, or a part of one.
    Full = 0,
    /// What changed.
    Delta = 1,
    /// A sign of life.
    KeepAlive = 2,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Full, Self::Delta, Self::KeepAlive];

    const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Delta => "delta",
            Self::KeepAlive => "keepalive",
        }
    }
}

/// Why a stream closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client, or the network, went away.
    Client = 0,
    /// Its node was deleted, has expired, or is held by a newer stream.
    Ended = 1,
    /// The server stops.
    Drain = 2,
}

/// Measurements of a [`Streamer`](crate::Streamer). Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    streams: Gauge,
    opens: Counter,
    closes: [Counter; 3],
    start_seconds: Histogram,
    sent: [Counter; 3],
    sent_bytes: [Counter; 3],
    frames_sent: Counter,
    frames_encoded: Counter,
    encoded_bytes: Counter,
    build_seconds: [Histogram; 2],
    flush_delay_seconds: Histogram,
    delivery_seconds: Histogram,
    coalesced: Counter,
}

impl Default for Metrics {
    /// Measurements that nobody reads.
    fn default() -> Self {
        Self {
            streams: Gauge::default(),
            opens: Counter::default(),
            closes: Default::default(),
            start_seconds: seconds(),
            sent: Default::default(),
            sent_bytes: Default::default(),
            frames_sent: Counter::default(),
            frames_encoded: Counter::default(),
            encoded_bytes: Counter::default(),
            build_seconds: [brief_seconds(), brief_seconds()],
            flush_delay_seconds: seconds(),
            delivery_seconds: seconds(),
            coalesced: Counter::default(),
        }
    }
}

/// From a millisecond to a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// From ten microseconds to a third of a second.
fn brief_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 2.0, 16))
}

impl Metrics {
    /// Measurements that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let closes = ByLabel::<Counter>::default();
        let (sent, sent_bytes) = (ByLabel::<Counter>::default(), ByLabel::<Counter>::default());
        let build = Family::<_, Histogram, fn() -> Histogram>::new_with_constructor(brief_seconds);
        let kinds = Kind::ALL.map(|kind| [("kind", kind.label())]);
        let this = Self {
            closes: ["client", "ended", "drain"]
                .map(|reason| closes.get_or_create_owned(&[("reason", reason)])),
            sent: kinds.map(|kind| sent.get_or_create_owned(&kind)),
            sent_bytes: kinds.map(|kind| sent_bytes.get_or_create_owned(&kind)),
            build_seconds: [Kind::Full, Kind::Delta]
                .map(|kind| build.get_or_create_owned(&[("kind", kind.label())])),
            ..Self::default()
        };
        registry.register("streams", "Open map streams", this.streams.clone());
        registry.register("stream_opens", "Map streams that were opened", this.opens.clone());
        registry.register("stream_closes", "Map streams that were closed", closes);
        let help = "Time from the opening of a map stream to its first message";
        registry.register("stream_start_seconds", help, this.start_seconds.clone());
        registry.register("maps_sent", "Messages handed to transports", sent);
        registry.register("map_bytes", "Bytes of these messages", sent_bytes);
        let help = "Pieces of messages that were encoded and compressed";
        registry.register("map_frames_encoded", help, this.frames_encoded.clone());
        let help = "Bytes of these pieces";
        registry.register("map_encoded_bytes", help, this.encoded_bytes.clone());
        let help = "Pieces of messages handed to transports; far more than were encoded, for most are shared";
        registry.register("map_frames_sent", help, this.frames_sent.clone());
        let help =
            "Time to make what one stream is told, shared pieces that it had to make included";
        registry.register("map_build_seconds", help, build);
        let help = "How long a change waited for its flush";
        registry.register("flush_delay_seconds", help, this.flush_delay_seconds.clone());
        let help = "Time from a change's commit until a stream's transport has taken it";
        registry.register("change_delivery_seconds", help, this.delivery_seconds.clone());
        let help = "Flushes that streams passed over because they were read too slowly";
        registry.register("map_coalesced", help, this.coalesced.clone());
        this
    }

    pub(crate) fn opened(&self) {
        self.opens.inc();
        self.streams.inc();
    }

    pub(crate) fn closed(&self, close: Close) {
        self.closes[close as usize].inc();
        self.streams.dec();
    }

    /// A transport took a stream's first message.
    pub(crate) fn started(&self, opened_at: Instant, now: Instant) {
        self.start_seconds.observe((now - opened_at).as_secs_f64());
    }

    /// A transport took a message of so many bytes.
    pub(crate) fn sent(&self, kind: Kind, message: &Message, bytes: u64) {
        self.sent[kind as usize].inc();
        self.sent_bytes[kind as usize].inc_by(bytes);
        self.frames_sent.inc_by(message.len() as u64);
    }

    /// A transport took the last that a stream was to be told of changes since `changed_at`.
    pub(crate) fn delivered(&self, changed_at: Instant, now: Instant) {
        self.delivery_seconds.observe((now - changed_at).as_secs_f64());
    }

    pub(crate) fn encoded(&self, bytes: usize) {
        self.frames_encoded.inc();
        self.encoded_bytes.inc_by(bytes as u64);
    }

    /// What a stream is told was made.
    pub(crate) fn built(&self, kind: Kind, time: Duration) {
        if let Some(histogram) = self.build_seconds.get(kind as usize) {
            histogram.observe(time.as_secs_f64());
        }
    }

    pub(crate) fn flushed(&self, changed_at: Instant) {
        self.flush_delay_seconds.observe(changed_at.elapsed().as_secs_f64());
    }

    pub(crate) fn coalesced(&self, flushes: u64) {
        self.coalesced.inc_by(flushes);
    }
}
