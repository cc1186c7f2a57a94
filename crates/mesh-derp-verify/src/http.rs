//! The server that is asked, as an HTTP client sees it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Url};

use crate::VerifyError;

/// How long it may take to reach the server.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Where an API key is read, anew each time that it is shown: it may have been renewed.
#[derive(Clone)]
pub struct ApiKeySource(Arc<dyn Fn() -> io::Result<String> + Send + Sync>);

impl ApiKeySource {
    /// `read` gives the key; white space around it does not count.
    pub fn new(read: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What shows the key, and is not shown itself.
    fn authorization(&self) -> Result<HeaderValue, VerifyError> {
        let text = self.0().map_err(VerifyError::ApiKeyUnread)?;
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| VerifyError::ApiKey)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeySource").finish_non_exhaustive()
    }
}

/// One address of one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    api_key: Option<ApiKeySource>,
}

impl Client {
    /// For an `http` or `https` URL; certificates are those that the system trusts.
    pub(crate) fn new(url: &str, api_key: Option<ApiKeySource>) -> Result<Self, VerifyError> {
        let wrong = || VerifyError::Url(url.to_owned());
        let url: Url = url.parse().map_err(|_| wrong())?;
        let builder = match url.scheme() {
            "https" => builder(),
            // The system's certificates may not even be there.
            "http" => builder().tls_certs_only([]),
            _ => return Err(wrong()),
        };
        if let Some(api_key) = &api_key {
            api_key.authorization()?;
        }
        Ok(Self { http: builder.build()?, url, api_key })
    }

    /// For a path of a server behind a unix socket.
    pub(crate) fn on_socket(socket: &Path, path: &str) -> Result<Self, VerifyError> {
        let url = format!("http://localhost{path}");
        let url = url.parse().map_err(|_| VerifyError::Url(url))?;
        let http = builder().tls_certs_only([]).unix_socket(socket.to_owned()).build()?;
        Ok(Self { http, url, api_key: None })
    }

    /// A GET with the API key as it is now.
    pub(crate) fn get(&self) -> Result<RequestBuilder, VerifyError> {
        let request = self.http.get(self.url.clone());
        Ok(match &self.api_key {
            Some(api_key) => request.header(AUTHORIZATION, api_key.authorization()?),
            None => request,
        })
    }

    pub(crate) fn post(&self) -> RequestBuilder {
        self.http.post(self.url.clone())
    }
}

/// A redirect would be somebody else's word.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_MAX)
}

/// An error and its causes on one line; reqwest tells the reason in the last.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}
