//! DERP maps of somebody else's, by their URLs.

use std::time::Duration;

use mesh_config::HttpUrl;
use mesh_config::sections::Derp;
use mesh_server::derp_map::{DerpSource, Problems};
use tokio::time::Instant;

/// How soon a map that could not be fetched is tried again; doubled at each failure.
const RETRY_MIN: Duration = Duration::from_secs(30);

/// The URLs, and what they said.
#[derive(Debug)]
pub(super) struct MapUrls {
    urls: Vec<MapUrl>,
    period: Duration,
    /// When they are asked again, if there are any.
    fetch_at: Instant,
    retry: Duration,
}

#[derive(Debug)]
struct MapUrl {
    url: String,
    /// What it last said. One that fails keeps what it had.
    source: DerpSource,
    /// When it last said so; at first, when it was first waited for.
    read_at: Instant,
    /// What was left out of that.
    problems: Problems,
}

impl MapUrls {
    /// The configured ones, which have not been asked yet.
    pub(super) fn new(config: &Derp) -> Self {
        let now = Instant::now();
        let url = |url: &HttpUrl| MapUrl {
            url: url.to_text(),
            source: DerpSource::default(),
            read_at: now,
            problems: Problems::default(),
        };
        Self {
            urls: config.urls.iter().map(url).collect(),
            period: config.update_frequency,
            fetch_at: now,
            retry: RETRY_MIN,
        }
    }

    /// When they want to be asked again.
    pub(super) fn fetch_at(&self) -> Instant {
        self.fetch_at
    }

    pub(super) fn read_at(&self) -> impl Iterator<Item = Instant> {
        self.urls.iter().map(|url| url.read_at)
    }

    pub(super) fn sources(&self) -> Vec<DerpSource> {
        self.urls.iter().map(|url| url.source.clone()).collect()
    }

    /// Asks every URL, sooner again if one has failed.
    pub(super) async fn fetch(&mut self) {
        let mut is_complete = true;
        for url in &mut self.urls {
            is_complete &= url.fetch().await;
        }
        let wait = if is_complete { self.period } else { self.retry.min(self.period) };
        self.retry = if is_complete { RETRY_MIN } else { 2 * wait };
        self.fetch_at = Instant::now() + wait;
    }
}

impl MapUrl {
    /// Says whether it has answered.
    async fn fetch(&mut self) -> bool {
        let url = &self.url;
        match DerpSource::fetch(url).await {
            Ok((source, problems)) => {
                if !problems.is_empty() && problems != self.problems {
                    tracing::warn!(url, "regions of a DERP map are left out: {problems}");
                }
                (self.source, self.problems, self.read_at) = (source, problems, Instant::now());
                true
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    url,
                    error,
                    "a DERP map could not be fetched, what it said before stays"
                );
                false
            }
        }
    }
}
