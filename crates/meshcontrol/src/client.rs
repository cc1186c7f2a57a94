//! The client of the admin API: over the server's unix socket, or over HTTP with an API key.

use std::error::Error;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use mesh_config::{Config, Secret};
use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// How long to wait for a local server that is just starting.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait before knocking on the socket again, at first and at most.
const KNOCK_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(400)];

/// No server could be reached.
#[derive(Debug, Error)]
#[error("no answer from {place}: {why}; {advice}")]
pub(crate) struct Unreachable {
    place: String,
    why: String,
    advice: &'static str,
}

/// The server refused or failed.
#[derive(Debug, Error)]
#[error("{detail}")]
struct Refused {
    detail: String,
}

/// A server, as its admins reach it.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// Of the API.
    url: Url,
    api_key: Option<Secret>,
    place: String,
    is_local: bool,
    /// How long to wait for a server that is just starting.
    patience: Duration,
}

impl Client {
    /// The server that the configuration names: a remote one, else the one behind the unix socket.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder()
            .timeout(config.cli.timeout)
            .redirect(reqwest::redirect::Policy::none());
        let Some(address) = &config.cli.address else {
            let builder = builder.unix_socket(config.unix_socket.clone());
            return Ok(Self {
                http: without_tls(builder).build()?,
                url: "http://localhost/api/v1".parse()?,
                api_key: None,
                place: config.unix_socket.display().to_string(),
                is_local: true,
                patience: START_PATIENCE,
            });
        };
        let api_key = config.cli.api_key.clone().context(
            "an API key is needed for a remote server: make one there with `meshcontrol apikeys \
             create` and give it here as MESHCONTROL_CLI_API_KEY",
        )?;
        let url = address.url();
        let place = url.origin();
        let builder = if url.is_https() {
            builder.tls_danger_accept_invalid_certs(config.cli.insecure)
        } else {
            without_tls(builder)
        };
        Ok(Self {
            http: builder.build().context("cannot read the system's certificates")?,
            url: format!("{}/api/v1", url.to_text().trim_end_matches('/')).parse()?,
            api_key: Some(api_key),
            place,
            is_local: false,
            patience: Duration::ZERO,
        })
    }

    /// One that does not wait for a server to start.
    pub(crate) fn impatient(self) -> Self {
        Self { patience: Duration::ZERO, ..self }
    }

    /// `GET`, with a query of the parameters that are given.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> anyhow::Result<T> {
        self.send(self.request(Method::GET, path, query)).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.send(self.request(Method::POST, path, &[]).json(body)).await
    }

    /// `PUT` of a HuJSON text as it is; the answer need not repeat it.
    pub(crate) async fn put_hujson<T: DeserializeOwned>(
        &self,
        path: &[&str],
        text: String,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::PUT, path, &[]).body(text);
        let request = request.header(header::CONTENT_TYPE, "application/hujson");
        self.send(request.header("prefer", "return=minimal")).await
    }

    /// `DELETE`, with a query of the parameters that are given.
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> anyhow::Result<T> {
        self.send(self.request(Method::DELETE, path, query)).await
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> RequestBuilder {
        let mut url = self.url.clone();
        url.path_segments_mut().expect("invariant: an http URL has a path").extend(path);
        let given = query.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let request = self.http.request(method, url).query(&given.collect::<Vec<_>>());
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let request = request.build()?;
        let deadline = Instant::now() + self.patience;
        let [mut pause, pause_max] = KNOCK_PAUSES;
        loop {
            let attempt = request.try_clone().context("invariant: the body is in memory")?;
            match self.http.execute(attempt).await {
                Ok(response) => return self.read(response).await,
                Err(error) if is_starting(&error) && Instant::now() + pause < deadline => {
                    sleep(pause).await;
                    pause = (2 * pause).min(pause_max);
                }
                Err(error) => return Err(self.unreachable(&error).into()),
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> anyhow::Result<T> {
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(refused(status, &body).into());
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("{} answered what a meshcontrol would not", self.place))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Unreachable {
        let why = if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            root_cause(error).to_string()
        };
        let is_closed =
            io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let advice = match (self.is_local, is_closed) {
            (true, true) => "run this as root or as a member of the socket's group",
            (true, false) => {
                "start it with `meshcontrol serve`, name its --data-dir or --config, or another \
                 server by MESHCONTROL_CLI_ADDRESS"
            }
            (false, _) => {
                "check MESHCONTROL_CLI_ADDRESS, that the server runs and its certificate is valid"
            }
        };
        Unreachable { place: self.place.clone(), why, advice }
    }
}

/// Leaves the system's certificates alone, which may not even be there.
fn without_tls(builder: ClientBuilder) -> ClientBuilder {
    builder.tls_certs_only([])
}

/// What the server says about a request that it did not carry out.
fn refused(status: StatusCode, body: &[u8]) -> Refused {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let detail = match serde_json::from_slice(body) {
        Ok(Problem { detail }) => detail,
        Err(_) => format!("the server answered {status}"),
    };
    Refused { detail }
}

/// Whether a server that starts would refuse like this.
fn is_starting(error: &reqwest::Error) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    error.is_connect() && io_error(error).is_some_and(|error| kinds.contains(&error.kind()))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let error: &(dyn Error + 'static) = error;
    std::iter::successors(Some(error), |error| (*error).source())
}

fn io_error(error: &reqwest::Error) -> Option<&io::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

fn root_cause(error: &reqwest::Error) -> &(dyn Error + 'static) {
    causes(error).last().expect("invariant: the error itself is one")
}
