//! What anybody may call: the way in for clients, health, and the pages a browser is sent to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use mesh_keys::MachinePublic;
use mesh_model::AuthId;
use mesh_state::{Login, LoginState};
use mesh_wire::{
    CapabilityVersion, DerpAdmitClientRequest, DerpAdmitClientResponse, OverTlsPublicKeyResponse,
};
use serde::Deserialize;
use serde_json::json;

use crate::machine::{BodyError, read_json};
use crate::metrics::measure;
use crate::{App, derp, derp_nodes, ts2021};

/// The first capability version that speaks Noise.
const NOISE_VERSION: CapabilityVersion = CapabilityVersion(39);

/// Largest body of `/verify`, in bytes.
const VERIFY_BYTES_MAX: usize = 4 << 10;

/// How long looking up our own name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// The routes outside of any channel, without the admin API.
pub(crate) fn router(app: App) -> Router {
    let metrics = app.metrics.clone();
    Router::new()
        .route("/key", get(key))
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/bootstrap-dns", get(bootstrap_dns))
        .route("/generate_204", get(derp::derp))
        .route("/verify", post(verify))
        .route("/register/{auth_id}", get(register_page))
        .route("/robots.txt", get(|| async { "User-agent: *\nDisallow: /\n" }))
        .route("/derp", any(derp::derp))
        .route("/derp/probe", any(derp::derp))
        .route("/derp/latency-check", any(derp::derp))
        .with_state(app.clone())
        .merge(ts2021::router(app))
        .layer(from_fn(with_security_headers))
        .layer(from_fn_with_state(metrics, measure))
}

/// Nothing of ours belongs in a frame, and browsers guess nothing.
async fn with_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[derive(Debug, Deserialize)]
struct KeyQuery {
    v: Option<String>,
}

/// `GET /key?v=N`: our Noise key. The key of the older protocol is there, and zero: clients want both.
async fn key(State(app): State<App>, Query(query): Query<KeyQuery>) -> Response {
    let version = query.v.and_then(|version| version.parse().ok()).map(CapabilityVersion);
    match version {
        Some(version) if version >= NOISE_VERSION => Json(OverTlsPublicKeyResponse {
            legacy_public_key: MachinePublic::default(),
            public_key: app.noise_key,
        })
        .into_response(),
        _ => (
            StatusCode::BAD_REQUEST,
            "ask with ?v= and a capability version of 39 or higher: update the client",
        )
            .into_response(),
    }
}

/// `GET /health`: whether the database answers.
async fn health(State(app): State<App>) -> Response {
    let passes = app.database.ping().await;
    let (status, word) =
        if passes { (StatusCode::OK, "pass") } else { (StatusCode::INTERNAL_SERVER_ERROR, "fail") };
    let content_type = [(header::CONTENT_TYPE, "application/health+json")];
    (status, content_type, json!({ "status": word }).to_string()).into_response()
}

/// `GET /livez`: that the process answers at all.
async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether new connections are welcome. Not asked of the database: while it is away, streams go on and
/// a server that was taken out of service would only move its load.
async fn readyz(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

/// `GET /version`.
async fn version() -> Json<serde_json::Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "name": "meshcontrol" }))
}

#[derive(Debug, Deserialize)]
struct BootstrapQuery {
    q: Option<String>,
}

/// `GET /bootstrap-dns?q=name`: addresses of this server or one of its relays, for clients whose DNS is
/// broken. Other names are none of our business.
async fn bootstrap_dns(State(app): State<App>, Query(query): Query<BootstrapQuery>) -> Response {
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    if let Some(name) = query.q.filter(|name| is_ours(&app, name)) {
        let lookup = tokio::net::lookup_host((name.clone(), 443));
        if let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            found.insert(name, addresses.map(|address| address.ip()).collect());
        }
    }
    ([(header::CONNECTION, "close")], Json(found)).into_response()
}

fn is_ours(app: &App, name: &str) -> bool {
    let context = app.contexts.borrow().clone();
    let url = app.server_url.parse::<axum::http::Uri>().ok();
    let is_server = url.as_ref().and_then(|url| url.host()).is_some_and(|host| host == name);
    let mut regions = context.derp_map.regions.iter().flat_map(|regions| regions.values());
    is_server || regions.any(|region| region.nodes.iter().any(|node| node.host_name == name))
}

/// `POST /verify`: whether a relay of somebody else should serve a node.
async fn verify(
    State(app): State<App>,
    body: Body,
) -> Result<Json<DerpAdmitClientResponse>, BodyError> {
    let request: DerpAdmitClientRequest = read_json(body, VERIFY_BYTES_MAX).await?;
    let snapshot = app.store.snapshot();
    let allow = derp_nodes::is_served(&snapshot, &request.node_public, app.clock.now());
    Ok(Json(DerpAdmitClientResponse { allow }))
}

/// `GET /register/{auth_id}`: what a person who wants to log in has to do. Looking at it changes nothing.
async fn register_page(State(app): State<App>, Path(auth_id): Path<String>) -> Response {
    let snapshot = app.store.snapshot();
    let auth_id = auth_id.parse::<AuthId>().ok();
    let login = auth_id.as_ref().and_then(|id| Some((id, snapshot.logins.get(id)?)));
    let (status, text) = match login {
        Some((id, login)) if login.state == LoginState::Waiting => {
            (StatusCode::OK, waiting(id, login))
        }
        Some(_) => (
            StatusCode::OK,
            "<h1>Decided</h1><p>This login was approved or rejected.</p>".to_owned(),
        ),
        None => (
            StatusCode::NOT_FOUND,
            "<h1>No such login</h1><p>It may have run out. Start again on the device.</p>"
                .to_owned(),
        ),
    };
    let no_store = [(HeaderName::from_static("cache-control"), "no-store")];
    (status, no_store, Html(page(&text))).into_response()
}

fn waiting(auth_id: &AuthId, login: &Login) -> String {
    let hostinfo = &login.registration.hostinfo;
    format!(
        "<h1>A device wants to join</h1>\
         <dl><dt>Name</dt><dd>{}</dd><dt>System</dt><dd>{} {}</dd><dt>Machine key</dt><dd><code>{}</code></dd></dl>\
         <p>If it is yours, have an admin run on the server:</p>\
         <pre>meshcontrol auth register --auth-id {auth_id} --user USER</pre>",
        escape(&hostinfo.hostname),
        escape(&hostinfo.os),
        escape(&hostinfo.os_version),
        login.registration.machine_key,
    )
}

fn page(text: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>meshcontrol</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em}}\
         pre{{background:#eee;padding:1em;overflow:auto}}</style>{text}</html>"
    )
}

/// A client chose this text: it must not become markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
