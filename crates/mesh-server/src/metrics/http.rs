//! Requests by route, and how long their answers took to begin.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{Histograms, Metrics, seconds};

/// What is said of requests that no route is for. Their paths are whatever strangers write.
const NO_ROUTE: &str = "none";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    /// As it is written in the router, its parameters by name.
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone)]
pub(super) struct HttpMetrics {
    requests: Family<Answered, Counter>,
    seconds: Histograms<Route>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self { requests: Family::default(), seconds: Family::new_with_constructor(seconds) }
    }
}

impl HttpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Requests that were answered", self.requests.clone());
        let help =
            "Time until an answer began; that of a map stream goes on for as long as it is open";
        registry.register("http_request_seconds", help, self.seconds.clone());
    }
}

/// Measures a request. A layer of every router that serves them.
pub(crate) async fn measure(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let since = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let answered = Answered { route, method, status };
    metrics.http.requests.get_or_create(&answered).inc();
    let route = Route { route: answered.route };
    metrics.http.seconds.get_or_create(&route).observe(since.elapsed().as_secs_f64());
    response
}

/// The method's name if it is one of ours: strangers make up others.
fn known(method: &Method) -> &'static str {
    let methods = [
        ("GET", Method::GET),
        ("POST", Method::POST),
        ("PUT", Method::PUT),
        ("PATCH", Method::PATCH),
        ("DELETE", Method::DELETE),
    ];
    methods.iter().find(|(_, known)| known == method).map_or("other", |(name, _)| name)
}
