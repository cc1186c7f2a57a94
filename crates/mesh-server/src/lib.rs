//! HTTP: the client protocol inside Noise, the admin API outside.
//!
//! A connection comes in through [`Listening`]; what it may ask for is in `public`, [`api`] and, once it has
//! become a Noise channel in `ts2021`, in `machine`. Handlers turn requests into commands and outcomes into
//! answers; what a command does is decided in `mesh-state`, what a map stream says in `mesh-netmap`.

pub mod api;
mod app;
mod derp;
pub mod derp_map;
pub mod derp_nodes;
mod limits;
mod listen;
mod machine;
pub mod metrics;
mod operator;
mod policy;
mod public;
pub mod secrets;
mod stall;
mod ts2021;
mod websocket;

pub use app::{App, Parts};
pub use limits::{BodyLimits, Slots};
pub use listen::{Listening, Peer};
pub use mesh_noise_io::http2::Timeouts;
pub use operator::{metrics_router, operator_router};
pub use policy::{CheckedPolicy, PolicyError, check_policy, read_policy};

/// All that the public listener serves beside the admin API.
pub fn public_router(app: App) -> axum::Router {
    public::router(app)
}
