//! Registering a key, until the control server has taken it: at once, or when somebody has logged in.

use std::convert::Infallible;
use std::time::Duration;

use mesh_client::ControlClient;
use mesh_keys::{NodePrivate, NodePublic};
use mesh_wire::{RegisterAuth, RegisterRequest, RegisterResponse};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tracing::{info, warn};

use super::{Identity, SessionError, VERSION};
use crate::state::StateError;

/// The longest wait for the answer to a registration that waits for nobody.
pub(super) const REGISTER_MAX: Duration = Duration::from_mins(1);

/// The longest wait for somebody to log in, after which the server is asked anew.
const FOLLOWUP_MAX: Duration = Duration::from_mins(15);

/// The pause after the server has stopped waiting for somebody to log in, before it is asked to wait again: some answer at once.
const FOLLOWUP_PAUSE: Duration = Duration::from_secs(2);

/// How often the log tells where somebody has to log in, as with tsnet.
const URL_TOLD_PERIOD: Duration = Duration::from_secs(5);

/// Longest URL of a login that is taken.
const URL_BYTES_MAX: usize = 4096;

/// A key on its way to be registered. It outlives the connection, so that a login that somebody has begun still counts.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) key: NodePrivate,
    /// The key before it; zero if the server may know the key itself.
    old_key: NodePublic,
    /// Where somebody has to log in, once the server has said so.
    url: String,
    /// Whether the auth key may stand in for somebody.
    uses_auth_key: bool,
}

impl Login {
    /// Registers a key that the server may know.
    pub(super) fn with(key: NodePrivate) -> Self {
        Self { key, old_key: NodePublic::default(), url: String::new(), uses_auth_key: true }
    }

    /// Registers a new key in place of `old_key`.
    pub(super) fn renewing(old_key: &NodePrivate) -> Result<Self, StateError> {
        let key = NodePrivate::generate()?;
        Ok(Self { key, old_key: old_key.public(), url: String::new(), uses_auth_key: true })
    }

    /// Has somebody log in, whatever auth key there is.
    pub(super) fn without_auth_key(self) -> Self {
        Self { uses_auth_key: false, ..self }
    }

    /// Lets the auth key stand in after all.
    pub(super) fn allow_auth_key(&mut self) {
        if !std::mem::replace(&mut self.uses_auth_key, true) {
            self.url.clear();
        }
    }

    /// Whether there was a key before, which the server may know.
    pub(super) fn is_renewal(&self) -> bool {
        !self.old_key.is_zero()
    }

    /// Returns when the server has taken the key. `tell_url` is told where to log in, whenever that is needed.
    ///
    /// Safe to cancel, and to be called again over another connection.
    ///
    /// # Errors
    /// After [`SessionError::Refused`] the login is over.
    pub(super) async fn run(
        &mut self,
        client: &ControlClient,
        identity: &Identity,
        tell_url: impl Fn(&str),
    ) -> Result<(), SessionError> {
        loop {
            let answer = self.ask(client, identity).await?;
            if !answer.error.is_empty() {
                return Err(SessionError::Refused(answer.error));
            } else if answer.node_key_expired {
                if self.is_renewal() {
                    let text = "it says that a key has expired which is new to it";
                    return Err(SessionError::Refused(text.to_owned()));
                }
                let uses_auth_key = self.uses_auth_key;
                *self = Self { uses_auth_key, ..Self::renewing(&self.key)? };
            } else if !answer.auth_url.is_empty() {
                self.note_url(answer.auth_url, identity, &tell_url).await?;
            } else if answer.machine_authorized {
                return Ok(());
            } else {
                return Err(SessionError::NotApproved);
            }
        }
    }

    async fn ask(
        &self,
        client: &ControlClient,
        identity: &Identity,
    ) -> Result<RegisterResponse, SessionError> {
        let request = register_request(self.key.public(), self.old_key, &self.url, identity);
        let auth = request.auth.clone().filter(|_| self.uses_auth_key);
        let request = RegisterRequest { auth, ..request };
        if self.url.is_empty() {
            return register(client, &request).await;
        }
        tokio::select! {
            biased;
            answer = timeout(FOLLOWUP_MAX, client.register(&request)) => {
                Ok(answer.map_err(|_| SessionError::NoAnswer)??)
            }
            never = self.tell_url_again() => match never {},
        }
    }

    async fn tell_url_again(&self) -> Infallible {
        let mut ticks = interval_at(Instant::now() + URL_TOLD_PERIOD, URL_TOLD_PERIOD);
        loop {
            ticks.tick().await;
            info!(url = %self.url, "waiting for somebody to log in");
        }
    }

    /// Notes where to log in. If it is not the first time, the server has given up waiting and is left in peace for a moment.
    async fn note_url(
        &mut self,
        url: String,
        identity: &Identity,
        tell_url: impl Fn(&str),
    ) -> Result<(), SessionError> {
        if !is_login_url(&url, identity) {
            let text = "it wants a login at a URL that is not safe to open";
            return Err(SessionError::Refused(text.to_owned()));
        }
        if self.url != url {
            warn!(%url, "somebody has to log in");
        }
        tell_url(&url);
        let is_first = std::mem::replace(&mut self.url, url).is_empty();
        if !is_first {
            sleep(FOLLOWUP_PAUSE).await;
        }
        Ok(())
    }
}

/// Whether a program may show a URL to its user: a page by `https`, or by `http` if the control server speaks no TLS either.
///
/// Source: tailscale `ipn/ipnlocal/local.go`, `validPopBrowserURL`.
fn is_login_url(url: &str, identity: &Identity) -> bool {
    let is_shown =
        url.len() <= URL_BYTES_MAX && !url.contains(|c: char| c.is_control() || c == ' ');
    let is_plain = url.starts_with("http://") && !identity.dialer.url().is_tls();
    is_shown && (is_plain || url.starts_with("https://"))
}

/// One registration, whose answer waits for nobody.
pub(super) async fn register(
    client: &ControlClient,
    request: &RegisterRequest,
) -> Result<RegisterResponse, SessionError> {
    let answer = timeout(REGISTER_MAX, client.register(request)).await;
    Ok(answer.map_err(|_| SessionError::NoAnswer)??)
}

pub(super) fn register_request(
    node_key: NodePublic,
    old_node_key: NodePublic,
    followup: &str,
    identity: &Identity,
) -> RegisterRequest {
    let auth_key = &identity.auth_key;
    let auth = (!auth_key.0.is_empty()).then(|| RegisterAuth { auth_key: auth_key.clone() });
    RegisterRequest {
        version: VERSION,
        node_key,
        old_node_key,
        auth,
        followup: followup.to_owned(),
        hostinfo: Some(Box::new(identity.hostinfo.clone())),
        ephemeral: identity.ephemeral,
        ..RegisterRequest::default()
    }
}
