//! Who may use a relay that runs on its own: it asks another server.
//!
//! There are two ways. A verify URL is asked at every login, as Tailscale's derper does; who is removed later stays
//! connected. A meshcontrol tells its list of nodes instead, and goes on with what changes: logins are answered from
//! memory, who is removed is cut at once, and while the server is away its last list stays in force. What a line of
//! that list looks like is decided here for both ends.

mod follower;
mod http;
mod line;
mod list;
pub mod metrics;
mod rarely;
mod stats;
mod url;
mod verifier;

pub use http::ApiKeySource;
pub use line::{KEEP_ALIVE_PERIOD, LINE_KEYS_MAX, LIST_PATH, Line};
pub use stats::VerifyStats;
pub use verifier::{Asks, Options, Verifier, VerifyError};
