//! DERP maps of somebody else's, by their URLs.

use std::future::pending;
use std::time::Duration;

use mesh_config::sections::Derp;
use mesh_server::derp_map::{DerpMapError, DerpSource, Problems};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// How soon a map that could not be fetched is tried again; doubled at each failure.
const RETRY_MIN: Duration = Duration::from_secs(30);

/// What a URL says, and what was left out of that.
type Answer = Result<(DerpSource, Problems), DerpMapError>;

/// The URLs, and what they said.
#[derive(Debug)]
pub(super) struct MapUrls {
    urls: Vec<MapUrl>,
    period: Duration,
    /// Whether those are asked again that have answered.
    is_followed: bool,
    /// When they are asked again, if any are.
    ask_at: Option<Instant>,
    retry: Duration,
    /// What those will say that are being asked, with their places.
    asked: JoinSet<(usize, Answer)>,
    /// Whether all that were asked this time have answered so far.
    is_complete: bool,
}

#[derive(Debug)]
struct MapUrl {
    url: String,
    /// What it last said, if it ever did. One that fails keeps what it had.
    source: Option<DerpSource>,
    /// When it last said so; at first, when it was first waited for.
    read_at: Instant,
    /// What was left out of that.
    problems: Problems,
}

impl MapUrls {
    /// The configured ones, which have not been asked yet.
    pub(super) fn new(config: &Derp) -> Self {
        let now = Instant::now();
        Self {
            urls: config.urls.iter().map(|url| MapUrl::new(url.to_text(), now)).collect(),
            period: config.update_frequency,
            is_followed: config.auto_update_enabled,
            ask_at: Some(now),
            retry: RETRY_MIN,
            asked: JoinSet::new(),
            is_complete: true,
        }
    }

    pub(super) fn read_at(&self) -> impl Iterator<Item = Instant> {
        self.urls.iter().map(|url| url.read_at)
    }

    pub(super) fn sources(&self) -> Vec<DerpSource> {
        self.urls.iter().filter_map(|url| url.source.clone()).collect()
    }

    /// Asks all of them for the first time, and waits for what they say, but not for long: [`Self::next`] takes in
    /// the rest.
    pub(super) async fn start(&mut self, patience: Duration) {
        self.ask();
        if timeout(patience, self.finish()).await.is_err() {
            let urls = self.asked.len();
            tracing::warn!(urls, "DERP maps are slow to fetch: they are taken in when they come");
        }
    }

    /// Waits for what all that are being asked say.
    pub(super) async fn finish(&mut self) {
        while !self.asked.is_empty() {
            self.next().await;
        }
    }

    /// Asks as soon as it is time, and takes in what the next one says; waits for ever if nobody is asked again. May
    /// be dropped while it waits.
    pub(super) async fn next(&mut self) {
        if self.asked.is_empty() {
            match self.ask_at {
                Some(ask_at) => sleep_until(ask_at).await,
                None => pending().await,
            }
            self.ask();
        }
        if let Some(answer) = self.asked.join_next().await {
            self.is_complete &= self.take_in(answer);
        }
        if self.asked.is_empty() {
            self.plan();
        }
    }

    /// Asks at the same time all that have something to say: one that hangs holds up no other.
    fn ask(&mut self) {
        self.is_complete = true;
        for (place, url) in self.urls.iter().enumerate() {
            if self.is_followed || url.source.is_none() {
                let url = url.url.clone();
                self.asked.spawn(async move { (place, DerpSource::fetch(&url).await) });
            }
        }
    }

    /// Says whether it is an answer.
    fn take_in(&mut self, answer: Result<(usize, Answer), JoinError>) -> bool {
        answer.is_ok_and(|(place, answer)| self.urls[place].take_in(answer))
    }

    /// Makes out when to ask again: sooner if one has failed.
    fn plan(&mut self) {
        let wait = if self.is_complete { self.period } else { self.retry.min(self.period) };
        self.retry = if self.is_complete { RETRY_MIN } else { 2 * wait };
        let is_asked_again = self.is_followed || !self.is_complete;
        self.ask_at = is_asked_again.then(|| Instant::now() + wait);
    }
}

impl MapUrl {
    fn new(url: String, now: Instant) -> Self {
        Self { url, source: None, read_at: now, problems: Problems::default() }
    }

    /// Says whether it is an answer.
    fn take_in(&mut self, answer: Answer) -> bool {
        let url = &self.url;
        match answer {
            Ok((source, problems)) => {
                if !problems.is_empty() && problems != self.problems {
                    tracing::warn!(url, "regions of a DERP map are left out: {problems}");
                }
                (self.source, self.problems, self.read_at) =
                    (Some(source), problems, Instant::now());
                true
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                let rest = match self.source {
                    Some(_) => "what it said before stays",
                    None => "it has not said anything yet",
                };
                tracing::warn!(url, error, "a DERP map could not be fetched, {rest}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
