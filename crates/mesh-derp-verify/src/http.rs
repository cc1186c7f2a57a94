//! The server that is asked, as an HTTP client sees it.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Url};

use crate::VerifyError;

/// How long it may take to reach the server.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// One address of one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
}

impl Client {
    /// For an `http` or `https` URL; certificates are those that the system trusts.
    pub(crate) fn new(url: &str, api_key: Option<&str>) -> Result<Self, VerifyError> {
        let wrong = || VerifyError::Url(url.to_owned());
        let url: Url = url.parse().map_err(|_| wrong())?;
        let builder = match url.scheme() {
            "https" => builder(),
            // The system's certificates may not even be there.
            "http" => builder().tls_certs_only([]),
            _ => return Err(wrong()),
        };
        let builder = match api_key {
            Some(key) => builder.default_headers(authorization(key)?),
            None => builder,
        };
        Ok(Self { http: builder.build()?, url })
    }

    /// For a path of a server behind a unix socket.
    pub(crate) fn on_socket(socket: &Path, path: &str) -> Result<Self, VerifyError> {
        let url = format!("http://localhost{path}");
        let url = url.parse().map_err(|_| VerifyError::Url(url))?;
        let http = builder().tls_certs_only([]).unix_socket(socket.to_owned()).build()?;
        Ok(Self { http, url })
    }

    pub(crate) fn get(&self) -> RequestBuilder {
        self.http.get(self.url.clone())
    }

    pub(crate) fn post(&self) -> RequestBuilder {
        self.http.post(self.url.clone())
    }
}

/// A redirect would be somebody else's word.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_MAX)
}

/// What shows an API key, and is not shown itself.
fn authorization(api_key: &str) -> Result<HeaderMap, VerifyError> {
    let value = HeaderValue::from_str(&format!("Bearer {api_key}"));
    let mut value = value.map_err(|_| VerifyError::ApiKey)?;
    value.set_sensitive(true);
    Ok([(AUTHORIZATION, value)].into_iter().collect())
}

/// An error and its causes on one line; reqwest tells the reason in the last.
pub(crate) fn error_chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}
