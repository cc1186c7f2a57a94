//! What an operator chooses, and the parts that follow from it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_relay::{Admission, Relay};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::follower::Follower;
use crate::http::{ApiKeySource, Client};
use crate::line::LIST_PATH;
use crate::list::NodeList;
use crate::stats::VerifyStats;
use crate::url::VerifyUrl;

/// Who is asked whether a client may use the relay, and what holds without an answer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who is asked.
    pub asks: Asks,
    /// Whether clients are let in while a verify URL is away, or until the first list of a control server has come.
    pub fail_open: bool,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Asks {
    /// A server that answers for each client at its login, at an `http` or `https` URL.
    Url(String),
    /// A meshcontrol whose list of nodes is followed.
    Control {
        /// Its URL, as clients know it.
        url: String,
        /// An API key of its.
        api_key: ApiKeySource,
    },
    /// A meshcontrol on this machine, whose list of nodes is followed over its unix socket.
    ControlSocket(PathBuf),
}

/// Why nobody can be asked.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The URL is none, or of another scheme.
    #[error("`{0}` is no http:// or https:// URL")]
    Url(String),
    /// The API key has characters that none has.
    #[error("the API key is none: it has characters that cannot be sent")]
    ApiKey,
    /// Where the API key should be, it is not.
    #[error("the API key cannot be read")]
    ApiKeyUnread(#[source] io::Error),
    /// HTTP is not to be had, for want of the system's certificates most likely.
    #[error("cannot ask over HTTP")]
    Http(#[from] reqwest::Error),
}

/// Decides who may use a relay: [`Self::admission`] goes into the relay, [`Self::spawn`] keeps it up to date.
#[derive(Debug)]
pub struct Verifier {
    way: Way,
    stats: Arc<VerifyStats>,
}

#[derive(Debug)]
enum Way {
    Url(Arc<VerifyUrl>),
    List { client: Client, list: Arc<NodeList> },
}

impl Verifier {
    /// Asks nobody yet. The process must have chosen its provider of cryptography.
    ///
    /// # Panics
    /// Outside of a tokio runtime: it is where the asking will be done.
    pub fn new(options: Options) -> Result<Self, VerifyError> {
        let stats = Arc::<VerifyStats>::default();
        let fail_open = options.fail_open;
        let list = |client| {
            let list = Arc::new(NodeList::new(fail_open, Arc::clone(&stats)));
            Way::List { client, list }
        };
        let way = match options.asks {
            Asks::Url(url) => {
                let client = Client::new(&url, None)?;
                Way::Url(Arc::new(VerifyUrl::new(client, fail_open, Arc::clone(&stats))))
            }
            Asks::Control { url, api_key } => {
                let url = format!("{}{LIST_PATH}", url.trim_end_matches('/'));
                list(Client::new(&url, Some(api_key))?)
            }
            Asks::ControlSocket(path) => list(Client::on_socket(&path, LIST_PATH)?),
        };
        Ok(Self { way, stats })
    }

    /// What the relay asks.
    pub fn admission(&self) -> Arc<dyn Admission> {
        match &self.way {
            Way::Url(url) => Arc::clone(url) as _,
            Way::List { list, .. } => Arc::clone(list) as _,
        }
    }

    /// What is counted.
    pub fn stats(&self) -> &Arc<VerifyStats> {
        &self.stats
    }

    /// Whether a list is followed, so that [`VerifyStats::has_list`] and [`VerifyStats::is_following`] say something.
    pub fn follows_a_list(&self) -> bool {
        matches!(self.way, Way::List { .. })
    }

    /// Follows the list, if there is one, and cuts off `relay` who leaves it, until `stop` or until the handle is
    /// dropped. The relay is to have this verifier's admission.
    pub fn spawn(self, relay: Relay, stop: CancellationToken) -> Option<AbortOnDropHandle<()>> {
        let Way::List { client, list } = self.way else { return None };
        let follower = Follower::new(client, list, relay, self.stats);
        Some(AbortOnDropHandle::new(tokio::spawn(follower.run(stop))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(asks: Asks) -> Result<Verifier, VerifyError> {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Verifier::new(Options { asks, fail_open: false })
    }

    fn api_key(text: &'static str) -> ApiKeySource {
        ApiKeySource::new(move || Ok(text.to_owned()))
    }

    #[tokio::test]
    async fn what_is_no_url_is_refused() {
        for url in ["", "mesh.example.com", "/verify", "ftp://mesh.example.com", "unix:/run/x"] {
            let control = Asks::Control { url: url.to_owned(), api_key: api_key("key") };
            for asks in [Asks::Url(url.to_owned()), control] {
                assert!(matches!(verifier(asks), Err(VerifyError::Url(_))), "{url}");
            }
        }
    }

    #[tokio::test]
    async fn an_api_key_is_checked_and_not_shown() {
        let control = |text| Asks::Control {
            url: "http://mesh.example.com".to_owned(),
            api_key: api_key(text),
        };
        assert!(matches!(verifier(control("two\nlines")), Err(VerifyError::ApiKey)));
        let verifier = verifier(control("tskey-api-secret")).unwrap();
        assert!(verifier.follows_a_list());
        for shown in [format!("{verifier:?}"), format!("{:?}", control("tskey-api-secret"))] {
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
