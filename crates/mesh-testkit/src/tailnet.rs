//! A whole tailnet on this machine, for examples that really run: a control server that lets everybody in, and a relay.
//!
//! Whoever registers with an auth key is a node of Alice's at once, whatever the key; others wait until [`Tailnet::log_in`].
//! Everybody sees and may reach everybody. What a real server has to refuse is not refused here.

mod members;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response, StatusCode};
use mesh_wire::{MapRequest, RegisterRequest, RegisterResponse};
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};

use crate::control_server::{Answer, Body, ControlServer, Region, encode, json, stream};
use members::Members;

/// Where nobody is: [`Tailnet::log_in`] is the login.
const LOGIN_URL: &str = "https://login.example.com/1";

/// Runs an example that needs a tailnet, and panics if it fails.
pub fn example(run: impl AsyncFnOnce(&Tailnet) -> Result<(), Box<dyn std::error::Error>>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ran = runtime.block_on(async { run(&Tailnet::spawn().await?).await });
    ran.expect("an example that works");
}

/// A tailnet. It ends when this is dropped.
#[derive(Debug)]
pub struct Tailnet {
    control: Arc<Control>,
    server: ControlServer,
}

/// What its control server answers.
#[derive(Debug)]
struct Control {
    region: Region,
    members: Mutex<Members>,
    /// Wakes the map streams.
    changes: watch::Sender<()>,
    logins: Notify,
}

impl Tailnet {
    /// Starts a tailnet without nodes.
    async fn spawn() -> Result<Self> {
        let control = Arc::new(Control {
            region: Region::spawn().await?,
            members: Mutex::default(),
            changes: watch::Sender::default(),
            logins: Notify::new(),
        });
        let asked = Arc::clone(&control);
        let server = ControlServer::spawn(move |request| Arc::clone(&asked).answer(request));
        Ok(Self { control, server: server.await? })
    }

    /// The URL of the control server.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Logs in for the node that waits for it, or else for the next that will.
    pub fn log_in(&self) {
        self.control.logins.notify_one();
    }
}

impl Control {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Answer {
        let body = request.body();
        match request.uri().path() {
            "/machine/register" => Ok(json(&self.register(serde_json::from_slice(body)?).await)),
            "/machine/map" => Ok(self.map(&serde_json::from_slice(body)?)),
            _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::default())?),
        }
    }

    async fn register(&self, request: RegisterRequest) -> RegisterResponse {
        if request.expiry.is_some() {
            self.members().remove(request.node_key);
            self.changes.send_replace(());
            return RegisterResponse { node_key_expired: true, ..RegisterResponse::default() };
        }
        if !request.followup.is_empty() {
            self.logins.notified().await;
        } else if request.auth.is_none() && !self.members().knows(request.node_key) {
            let auth_url = LOGIN_URL.to_owned();
            return RegisterResponse { auth_url, ..RegisterResponse::default() };
        }
        self.members().register(request);
        self.changes.send_replace(());
        RegisterResponse { machine_authorized: true, ..RegisterResponse::default() }
    }

    fn map(self: Arc<Self>, request: &MapRequest) -> Response<Body> {
        self.members().update(request);
        self.changes.send_replace(());
        if !request.stream {
            return Response::default();
        }
        let (key, mut changes) = (request.node_key, self.changes.subscribe());
        changes.mark_changed();
        stream(unfold((self, changes), move |(control, mut changes)| async move {
            changes.changed().await.ok()?;
            let message = control.members().map_for(key, &control.region.derp_map)?;
            Some((encode(&message), (control, changes)))
        }))
    }
}
