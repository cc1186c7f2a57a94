//! `derp`: relays for nodes that cannot reach each other directly, and STUN.

mod server;

use std::path::PathBuf;
use std::time::Duration;

use crate::finding::Report;
use crate::key::section;
use crate::sections::Config;
use crate::types::HttpUrl;

pub use server::{DerpLimits, DerpMesh, DerpServer, DerpVerify};

/// How often other relays' maps may be fetched at most; they belong to somebody else's server.
const UPDATE_FREQUENCY_MIN: Duration = Duration::from_mins(1);

section! {
    /// Relays for nodes that cannot reach each other directly.
    pub struct Derp {
        /// URLs of DERP maps in JSON that are offered to clients too, such as
        /// `https://controlplane.tailscale.com/derpmap/default`.
        pub urls: Vec<HttpUrl> = "derp.urls", "[]";
        /// Files with DERP maps in YAML or JSON that are offered to clients too; they win over urls.
        pub paths: Vec<PathBuf> = "derp.paths", "[]";
        /// Whether urls are read again every `update_frequency`, and paths within seconds of a change.
        pub auto_update_enabled: bool = "derp.auto_update_enabled", "true";
        /// How often urls are read again, a duration of 1m or longer.
        pub update_frequency: Duration = "derp.update_frequency", "3h";
    }
    sections {
        /// The relay in this process.
        pub server: DerpServer;
    }
}

impl Derp {
    pub(crate) fn check(&self, config: &Config, report: &mut Report) {
        if self.update_frequency < UPDATE_FREQUENCY_MIN {
            report.error("derp.update_frequency", "must be 1m or longer");
        }
        self.server.check(config, report);
    }
}
