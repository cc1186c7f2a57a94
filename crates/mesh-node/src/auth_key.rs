//! The auth key that a node joins with: as it is given, or made with the secret of an OAuth client.
//!
//! Source: tailscale `tsnet/tsnet.go`, `feature/oauthkey/oauthkey.go`.

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

/// Why an OAuth client's secret yields no auth key.
#[derive(Debug, Error)]
pub enum AuthKeyError {
    /// Keys of OAuth clients are for tagged nodes only.
    #[error("the secret of an OAuth client makes keys for tagged nodes only: give advertise_tags")]
    NoTags,
    /// What follows the secret after `?` is not understood.
    #[error(
        "`{0}` after the secret of an OAuth client is none of ephemeral=, preauthorized=, baseURL="
    )]
    Option(String),
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
    secret: SecretText,
    is_ephemeral: bool,
    is_preauthorized: bool,
    base_url: Option<ControlUrl>,
}

impl AuthKey {
    /// Reads a key, or `tskey-client-...[?ephemeral=false&preauthorized=true&baseURL=https%3A%2F%2Fserver]`.
    pub(crate) fn parse(text: &str) -> Result<Self, AuthKeyError> {
        if !text.starts_with(SECRET_PREFIX) {
            return Ok(Self::Plain(SecretText(text.to_owned())));
        }
        let (secret, options) = text.split_once('?').unwrap_or((text, ""));
        let mut client = Client {
            secret: SecretText(secret.to_owned()),
            is_ephemeral: true,
            is_preauthorized: false,
            base_url: None,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            client.set(option)?;
        }
        Ok(Self::Client(client))
    }
}

impl Client {
    fn set(&mut self, option: &str) -> Result<(), AuthKeyError> {
        let unknown = || AuthKeyError::Option(option.to_owned());
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        let value = percent_decoded(value).ok_or_else(unknown)?;
        match name {
            "ephemeral" => self.is_ephemeral = value.parse().map_err(|_| unknown())?,
            "preauthorized" => self.is_preauthorized = value.parse().map_err(|_| unknown())?,
            "baseURL" => self.base_url = Some(value.parse()?),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Makes a key that is good for one node with these tags.
    ///
    /// Where `baseURL` says nothing, the control server is asked; stock clients ask Tailscale's then, which has no business to see
    /// the secrets of other servers.
    pub(crate) async fn make_key(
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
        // The secret says whose it is; stock clients send some id as well.
        let secret = percent_encoded(&self.secret.0);
        let form =
            format!("grant_type=client_credentials&client_id=mesh-node&client_secret={secret}");
        let request = Request::post("/api/v2/oauth/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
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
