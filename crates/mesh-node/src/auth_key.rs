//! The auth key that a node joins with: as it is given, or made with the secret of an OAuth client, or with the ID token that the
//! place where a workload runs has issued to it.
//!
//! Source: tailscale `tsnet/tsnet.go`, `feature/oauthkey/oauthkey.go`, `feature/identityfederation/identityfederation.go`.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use mesh_client::{ControlUrl, ControlUrlError, DialError, Dialer};
use mesh_wire::SecretText;
use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

/// How the secret of an OAuth client begins.
const SECRET_PREFIX: &str = "tskey-client-";

/// Most characters of a refusal that an error repeats.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why an OAuth client, by its secret or an ID token, yields no auth key.
///
/// ```
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// use mesh_node::{AuthKeyError, BuildError};
///
/// let untagged = Node::builder().control_url(tailnet.url()).auth_key("tskey-client-...").ephemeral(true);
/// assert!(matches!(untagged.build().await, Err(BuildError::AuthKey(AuthKeyError::NoTags))));
/// # Ok(()) });
/// ```
#[derive(Debug, Error)]
pub enum AuthKeyError {
    /// Keys of OAuth clients are for tagged nodes only.
    #[error("an OAuth client makes keys for tagged nodes only: give advertise_tags")]
    NoTags,
    /// What follows the secret or the client's id after `?` is not understood.
    #[error(
        "`{0}` is no option of an OAuth client: ephemeral=, preauthorized= and, after a secret, baseURL= are"
    )]
    Option(String),
    /// A client's id alone proves nothing.
    #[error("client_id without what proves it: give id_token, or set TS_ID_TOKEN")]
    NoIdToken,
    /// An ID token is for some client.
    #[error("ID token or audience without its client: give client_id, or set TS_CLIENT_ID")]
    NoClientId,
    /// An audience is asked an ID token for, and there is one.
    #[error("both an ID token and TS_AUDIENCE: only one of them may be")]
    TwoTokens,
    /// No cloud is asked for an ID token.
    #[error("this node has nobody issue an ID token for TS_AUDIENCE: give id_token instead")]
    Audience,
    /// The URL of `baseURL=` is none.
    #[error("baseURL after the secret of an OAuth client is not valid")]
    BaseUrl(#[from] ControlUrlError),
    /// The server cannot be asked.
    #[error("server of the OAuth client cannot be reached")]
    Ask(#[from] DialError),
    /// The server refuses.
    #[error("server makes no auth key: it answers {status}: {message:?}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What the server said, cut short.
        message: String,
    },
    /// The server's answer is not what it should be.
    #[error("server makes no auth key: its answer is malformed")]
    Answer(#[from] serde_json::Error),
}

/// What stands for an auth key.
#[derive(Debug, PartialEq)]
pub(crate) enum AuthKey {
    Plain(SecretText),
    Client(Client),
}

/// An OAuth client, and what keys it shall make.
#[derive(Debug, PartialEq)]
pub(crate) struct Client {
    credential: Credential,
    is_ephemeral: bool,
    is_preauthorized: bool,
    base_url: Option<ControlUrl>,
}

/// How a client shows who it is.
#[derive(Debug, PartialEq)]
enum Credential {
    /// The secret says whose it is.
    Secret(SecretText),
    /// Somebody whom the server trusts has signed a token for the client of this id.
    IdToken(String, SecretText),
}

/// What a program is told of its identity as a workload; empty is what it is not told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    /// With options after a `?`.
    pub(crate) client_id: String,
    pub(crate) id_token: SecretText,
    pub(crate) audience: String,
}

impl AuthKey {
    /// The key of a text, or else a workload's client; a plain key that is empty if there is neither.
    pub(crate) fn choose(text: &str, workload: Workload) -> Result<Self, AuthKeyError> {
        if !text.is_empty() {
            return Self::parse(text);
        }
        Ok(workload.client()?.map_or(Self::Plain(SecretText::default()), Self::Client))
    }

    /// The key to join with; empty if there is none. A client makes one only if the node has not joined before.
    pub(crate) async fn resolve(
        self,
        has_joined: bool,
        tags: &[String],
        control_url: &ControlUrl,
        roots: &RootCertStore,
    ) -> Result<SecretText, AuthKeyError> {
        match self {
            Self::Plain(key) => Ok(key),
            Self::Client(_) if has_joined => Ok(SecretText::default()),
            Self::Client(client) => client.make_key(tags, control_url, roots).await,
        }
    }

    /// Reads a key, or `tskey-client-...[?ephemeral=false&preauthorized=true&baseURL=https%3A%2F%2Fserver]`.
    fn parse(text: &str) -> Result<Self, AuthKeyError> {
        if !text.starts_with(SECRET_PREFIX) {
            return Ok(Self::Plain(SecretText(text.to_owned())));
        }
        let (secret, options) = text.split_once('?').unwrap_or((text, ""));
        let secret = Credential::Secret(SecretText(secret.to_owned()));
        Ok(Self::Client(Client::new(secret, true).with(options)?))
    }
}

impl Workload {
    /// With what environment variables say where nothing else does.
    pub(crate) fn or(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let Self { client_id, id_token, audience } = &mut self;
        let texts = [client_id, &mut id_token.0, audience];
        for (text, name) in texts.into_iter().zip(["TS_CLIENT_ID", "TS_ID_TOKEN", "TS_AUDIENCE"]) {
            if text.is_empty() {
                *text = variable(name).unwrap_or_default();
            }
        }
        self
    }

    /// The client that a workload is, if it is one.
    fn client(self) -> Result<Option<Client>, AuthKeyError> {
        let Self { client_id, id_token, audience } = self;
        match (!client_id.is_empty(), !id_token.0.is_empty(), !audience.is_empty()) {
            (false, false, false) => return Ok(None),
            (_, true, true) => return Err(AuthKeyError::TwoTokens),
            (false, _, _) => return Err(AuthKeyError::NoClientId),
            (true, false, false) => return Err(AuthKeyError::NoIdToken),
            (true, false, true) => return Err(AuthKeyError::Audience),
            (true, true, false) => {}
        }
        let (id, options) = client_id.split_once('?').unwrap_or((&client_id, ""));
        // As with stock clients: whoever writes options writes all that shall be.
        let is_ephemeral = id.len() == client_id.len();
        let client = Client::new(Credential::IdToken(id.to_owned(), id_token), is_ephemeral);
        client.with(options).map(Some)
    }
}

impl Client {
    fn new(credential: Credential, is_ephemeral: bool) -> Self {
        Self { credential, is_ephemeral, is_preauthorized: false, base_url: None }
    }

    fn with(mut self, options: &str) -> Result<Self, AuthKeyError> {
        for option in options.split('&').filter(|option| !option.is_empty()) {
            self.set(option)?;
        }
        Ok(self)
    }

    fn set(&mut self, option: &str) -> Result<(), AuthKeyError> {
        let unknown = || AuthKeyError::Option(option.to_owned());
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        let value = percent_decoded(value).ok_or_else(unknown)?;
        match name {
            "ephemeral" => self.is_ephemeral = value.parse().map_err(|_| unknown())?,
            "preauthorized" => self.is_preauthorized = value.parse().map_err(|_| unknown())?,
            "baseURL" if matches!(self.credential, Credential::Secret(_)) => {
                self.base_url = Some(value.parse()?);
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Makes a key that is good for one node with these tags.
    ///
    /// Where `baseURL` says nothing, the control server is asked; stock clients ask Tailscale's then, which has no business to see
    /// the secrets of other servers.
    async fn make_key(
        self,
        tags: &[String],
        control_url: &ControlUrl,
        roots: &RootCertStore,
    ) -> Result<SecretText, AuthKeyError> {
        if tags.is_empty() {
            return Err(AuthKeyError::NoTags);
        }
        let url = self.base_url.unwrap_or_else(|| control_url.clone());
        let dialer = Dialer::new(url, roots.clone());
        let (path, form) = self.credential.form();
        let request =
            Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let token: Token = ask(&dialer, request, form).await?;
        let wanted = json!({ "capabilities": { "devices": { "create": {
            "reusable": false,
            "ephemeral": self.is_ephemeral,
            "preauthorized": self.is_preauthorized,
            "tags": tags,
        } } } });
        let request = Request::post("/api/v2/tailnet/-/keys")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.access_token));
        let made: Key = ask(&dialer, request, wanted.to_string()).await?;
        Ok(SecretText(made.key))
    }
}

impl Credential {
    /// Where a token for the server's API is asked for, and how.
    fn form(&self) -> (&'static str, String) {
        match self {
            Self::Secret(secret) => {
                let secret = percent_encoded(&secret.0);
                // The secret says whose it is; stock clients send some id as well.
                let form = format!(
                    "grant_type=client_credentials&client_id=mesh-node&client_secret={secret}"
                );
                ("/api/v2/oauth/token", form)
            }
            Self::IdToken(id, token) => {
                let (id, token) = (percent_encoded(id), percent_encoded(&token.0));
                ("/api/v2/oauth/token-exchange", format!("client_id={id}&jwt={token}"))
            }
        }
    }
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

async fn ask<T: for<'de> Deserialize<'de>>(
    dialer: &Dialer,
    request: http::request::Builder,
    body: String,
) -> Result<T, AuthKeyError> {
    let request = request.body(Full::from(body)).map_err(|error| DialError::Request(error.into()));
    let answer = dialer.request_outside(request?).await?;
    if !answer.status().is_success() {
        return Err(refusal(&answer));
    }
    Ok(serde_json::from_slice(answer.body())?)
}

fn refusal(answer: &Response<Bytes>) -> AuthKeyError {
    let message = String::from_utf8_lossy(answer.body());
    let message = message.trim().chars().take(MESSAGE_CHARS_MAX).collect();
    AuthKeyError::Refused { status: answer.status(), message }
}

fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
